"""Files that appear complete or not at all, whatever kills the process."""

import errno
import os
import re
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from glob import escape
from pathlib import Path

from t2i_tools.errors import InputError, first_line

FULL = {errno.ENOSPC, *({errno.EDQUOT} if hasattr(errno, "EDQUOT") else ())}  # Windows has no quota of its own
UNUSABLE = FULL | {errno.EROFS, errno.EFBIG, errno.EIO}  # what is wrong with a disk, whichever file met it first
WRITABLE = "choose another folder, or remount it read-write"
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
        raise unwritable(path, error) from error


def unwritable(path: str | Path, error: OSError) -> InputError:
    """The one line for a place that cannot be written: which, why, and what to do where the disk is to blame."""
    return InputError(f"cannot write {path}: {reason(error)}")


def reason(error: OSError) -> str:
    """Explain why a file cannot be written and, where the disk is to blame, what to do."""
    why = error.strerror or first_line(error)
    if error.errno in FULL:
        return f"{why}: free some space and try again"
    if error.errno == errno.EROFS:
        return f"the file system is read-only; {WRITABLE}"
    return why


def is_read_only(folder: Path) -> bool:
    """Return whether a folder's file system is mounted read-only."""
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def remove_parts(path: Path) -> None:
    """Remove what a killed process left of `path`; only for whoever has the right to write it. Raises InputError."""
    _remove(_parts(path))


def remove_dead_parts(folder: Path) -> None:
    """Remove what killed processes of this machine left in a folder and those below it. Raises InputError."""
    _remove(filter(_is_dead, folder.rglob(".*.part")))


def _remove(parts: Iterable[Path]) -> None:
    for part in parts:
        try:
            part.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"cannot remove {part}: {reason(error)}") from error


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
