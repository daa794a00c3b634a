"""What goes wrong for a reason that the user can mend: one line that says what, why and what to do."""

import re

LONG = 200  # characters


class T2IError(Exception):
    """Base of all errors that t2i-tools raises on purpose. The shell prints the message alone and exits with 2."""


class InputError(T2IError):
    """A value, a file or a combination of options that cannot be used."""


class ModelError(T2IError):
    """A model, or a part of one, that cannot be opened."""


class UnsupportedModelError(T2IError):
    """A model that opens, but lacks what the request needs."""


class OutOfMemoryError(T2IError):
    """The device has no room for the model or the image."""


def first_line(error: BaseException) -> str:
    """The first non-empty line of an error's message, for quoting a library inside a message of ours.

    Of a long one the first sentence: what follows is advice on arguments that our user has not got.
    """
    lines = (line.strip() for line in str(error).splitlines())
    line = next((line for line in lines if line), type(error).__name__)
    return line if len(line) <= LONG else re.split(r"(?<=[.!?]) (?=[A-Z])", line)[0]
