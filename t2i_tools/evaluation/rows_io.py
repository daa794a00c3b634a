"""The texts and rows of an evaluation, in files that appear complete or not at all."""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from t2i_tools.errors import InputError, shortened
from t2i_tools.files import replacing, unwritable


def write_text(path: Path, text: str) -> None:
    """Write a file, down to the disk. Raises InputError when the place cannot be written.

    Half a surrogate pair, which UTF-8 cannot hold, is written as its escape.
    """
    with replacing(path) as part, open(part, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def copy_file(source: Path, target: Path) -> None:
    """Copy a file. Raises InputError."""
    if not source.is_file():
        raise InputError(f"cannot copy {source}: it is not there")
    with replacing(target) as part:
        shutil.copyfile(source, part)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, complete or not at all."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file. Raises InputError when it is missing or broken."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise InputError(f"cannot read {shortened(path)}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is broken: remove it and run again") from error
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} is broken: one of its lines is not a JSON object; remove it and run again")
    return rows


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add one line to a log that several processes write: in one call of the system, which no kill tears.

    A full disk may tear it; the next line begins a new one then. Raises InputError when the place cannot be written.
    """
    line = json.dumps(row).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+", buffering=0) as log:
            if end := log.seek(0, os.SEEK_END):
                log.seek(end - 1)
                line = line if log.read(1) == b"\n" else b"\n" + line
            if log.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise unwritable(path, error) from error


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log written by `append_row`; none when there is no log."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        with suppress(ValueError, RecursionError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]
