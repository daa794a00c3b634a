"""Files that appear complete or not at all, whatever kills the process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from t2i_tools.errors import InputError, first_line

LONGEST = 100  # characters of a name that its part keeps, so that the part's own name is not too long


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to, in a folder that is there; at the end it replaces `path`, or goes.

    Raises InputError when the place cannot be written.
    """
    part = path.with_name(f".{path.name[:LONGEST]}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or first_line(error)}") from error


def remove_parts(path: Path) -> None:
    """Remove what a killed process left of `path`; only for whoever has the right to write it."""
    for part in path.parent.glob(f".{escape(path.name[:LONGEST])}.*.part"):
        part.unlink(missing_ok=True)
