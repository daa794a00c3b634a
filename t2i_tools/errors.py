"""What goes wrong for a reason that the user can mend: one line that says what, why and what to do."""

import os
import re

LONG = 200  # characters
DEBUG = "T2I_DEBUG"  # in the environment, so that worker processes have it too


class T2IError(Exception):
    """All errors that t2i-tools raises on purpose derive from this one.

    The shell prints the message alone and exits with 2.
    """


class InputError(T2IError):
    """A value, a file or a combination of options cannot be used."""


class ModelError(T2IError):
    """A model, or a part of one, cannot be opened or gives no image."""


class UnsupportedModelError(T2IError):
    """A model opens, but lacks what the request needs."""


class OutOfMemoryError(T2IError):
    """The device has no room for the model or the image."""


def install_command(extra: str) -> str:
    """The command that installs an extra, from a clone: the package is on no index."""
    return f"pip install '.[{extra}]'"


def install(extra: str) -> str:
    """What to do about a missing extra, for a message."""
    return f"{install_command(extra)} in your clone of t2i-tools"


def debugging() -> bool:
    """Whether tracebacks are wanted beside the one line, and warnings of libraries with them (`--debug`)."""
    return os.environ.get(DEBUG, "0") not in ("", "0")


def shortened(text: object) -> str:
    """A name or path for a message, of at most LONG characters."""
    text = str(text)
    return text if len(text) <= LONG else f"{text[: LONG // 2]}...{text[-LONG // 2 :]}"


def first_line(error: BaseException) -> str:
    """The first non-empty line of an error's message, for quoting a library inside a message of ours.

    Of a long one the first sentence, shortened: what follows is advice on arguments that our user has not got.
    """
    lines = (line.strip() for line in str(error).splitlines())
    line = next((line for line in lines if line), type(error).__name__)
    return line if len(line) <= LONG else shortened(re.split(r"(?<=[.!?]) (?=[A-Z])", line)[0])
