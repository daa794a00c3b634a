"""The texts and rows of an evaluation, in files that appear complete or not at all."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from t2i_tools.errors import InputError, shortened
from t2i_tools.files import replacing


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
    """Add one line to a log that several processes write: in one call of the system, which no kill tears."""
    line = json.dumps(row).encode() + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log written by `append_row`; none when there is no log."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        with suppress(ValueError, RecursionError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]
