"""Files that appear complete or not at all, whatever kills the process."""

import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from glob import escape
from pathlib import Path

from t2i_tools.errors import InputError, first_line

LONGEST = 100  # characters of a name that its part keeps, so that the part's own name is not too long


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to, in a folder that is there; at the end it replaces `path`, or goes.

    What processes of this machine that were killed left of the same path goes first. Raises InputError when the place
    cannot be written.
    """
    part = path.with_name(f".{path.name[:LONGEST]}.{_host()}-{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for dead in filter(_is_dead, _parts(path)):
            dead.unlink(missing_ok=True)
        try:
            yield part
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or first_line(error)}") from error


def remove_parts(path: Path) -> None:
    """Remove what a killed process left of `path`; only for whoever has the right to write it."""
    for part in _parts(path):
        part.unlink(missing_ok=True)


def remove_dead_parts(folder: Path) -> None:
    """Remove what killed processes of this machine left in a folder and those below it."""
    for part in folder.rglob(".*.part"):
        if _is_dead(part):
            part.unlink(missing_ok=True)


def _is_dead(part: Path) -> bool:
    host, _, pid = part.name.removesuffix(".part").rpartition(".")[2].rpartition("-")
    return host == _host() and pid.isdecimal() and len(pid) < 20 and not _is_alive(int(pid))


def _parts(path: Path) -> list[Path]:
    return list(path.parent.glob(f".{escape(path.name[:LONGEST])}.*.part"))


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":  # where signal 0 would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@cache
def _host() -> str:
    return re.sub(r"[^\w-]", "-", socket.gethostname())[:40]
