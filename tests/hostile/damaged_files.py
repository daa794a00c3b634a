"""Thousands of damaged files for every reader: `python tests/hostile/damaged_files.py --log damage.jsonl`.

Each file follows from --seed and its number alone, so `--only 123` makes one of them again. A run that was stopped goes
on behind the last number in its log. Readers run in a child process, whose death or silence is a finding too.
"""

import argparse
import json
import logging
import mmap
import os
import random
import resource
import signal
import struct
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.mutations import mutate  # noqa: E402
from support.readers import READERS, attempt, harmed, quiet, samples  # noqa: E402

CHUNK = 250  # files per child
HANG = 20.0  # seconds of the processor
GIB = 2**30


def main() -> None:
    """Prints one line per finding and a summary; the exit code is 1 where there are findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=Path("damage.jsonl"))
    parser.add_argument("--only", type=int, help="One file by its number, with the traceback.")
    parser.add_argument("--reader", help="Only readers whose name contains this.")
    asked = parser.parse_args()
    quiet()
    with tempfile.TemporaryDirectory() as root:
        made = samples(Path(root) / "whole")
        if asked.only is not None:
            show(asked.only, asked.seed, made, Path(root) / "harmed")
            return
        at = mmap.mmap(-1, 8)
        start = first_left(asked.log)
        while start < asked.files:
            end = min(start + CHUNK, asked.files)
            start = life(start, end, asked, made, Path(root) / f"harmed-{start}", at)
    sys.exit(summarize(asked.log))


def life(start: int, end: int, asked: argparse.Namespace, made: dict[str, Path], place: Path, at: mmap.mmap) -> int:
    """Read the files from `start` on in a child; returns the next one's number."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in range(start, end):
            at[:] = struct.pack("q", number)
            signal.setitimer(signal.ITIMER_PROF, HANG)  # whose signal ends the process
            reader, folder = case(number, asked.seed, made, place)
            if asked.reader and asked.reader not in reader.name:
                continue
            result = attempt(reader, folder)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            note(asked.log, {"n": number, "reader": reader.name, "peak": round(peak, 2), **vars(result)})
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status == 0:
        return end
    (number,) = struct.unpack("q", at[:])
    reader, _ = reader_of(number)
    died = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status >> 8}"
    note(asked.log, {"n": number, "reader": reader.name, "seconds": 0.0, "message": "", "fault": f"died: {died}"})
    return number + 1


def reader_of(number: int) -> tuple:
    """The reader of a file and how many files of it came before."""
    return READERS[number % len(READERS)], number // len(READERS)


def case(number: int, seed: int, made: dict[str, Path], place: Path) -> tuple:
    """The reader of a file, and the folder it lies in."""
    chance = random.Random(f"{seed} {number}")
    reader, _ = reader_of(number)
    whole = (made[reader.name] / reader.file).read_bytes()
    other = chance.choice(READERS)
    content = mutate(whole, (made[other.name] / other.file).read_bytes(), reader.form, chance)
    return reader, harmed(reader, made[reader.name], place / reader.name, content)


def show(number: int, seed: int, made: dict[str, Path], place: Path) -> None:
    """Read one file, with whatever it raises."""
    reader, folder = case(number, seed, made, place)
    print(reader.name, (folder / reader.file).read_bytes()[:2000])
    print(attempt(reader, harmed(reader, made[reader.name], place / "again", (folder / reader.file).read_bytes())))
    logging.disable(logging.NOTSET)
    print(reader.read(folder))


def note(log: Path, row: dict) -> None:
    """Add a line to the log."""
    with open(log, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def rows_of(log: Path) -> list[dict]:
    """The lines of the log."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def first_left(log: Path) -> int:
    """The number behind the last one that was read."""
    return max((row["n"] for row in rows_of(log)), default=-1) + 1


def summarize(log: Path) -> int:
    """Print the findings by kind and the figures; 1 where there are findings."""
    rows = rows_of(log)
    faults = [row for row in rows if row["fault"]]
    for (reader, fault), number in sorted(Counter((row["reader"], row["fault"]) for row in faults).items()):
        first = next(row for row in faults if (row["reader"], row["fault"]) == (reader, fault))
        print(f"{number:5} {reader:25} {fault} (--only {first['n']}): {first['message'][:120]}")
    lines = sum(bool(row["message"]) and not row["fault"] for row in rows)
    read = len(rows) - lines - len(faults)
    print(
        f"{len(rows)} files, {lines} refused in one line, {read} read, {len(faults)} findings; "
        f"slowest {max(row['seconds'] for row in rows):.2f} s, peak {max(row.get('peak', 0) for row in rows):.2f} GiB"
    )
    return int(bool(faults))


if __name__ == "__main__":
    main()
