"""What is wrong with an input, in words of people, and with which."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from t2i_tools.errors import InputError, T2IError, shortened

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")
# The type of an error of pydantic's -> the same in plain words.
WORDS = {
    "int_type": "{input!r} is not a whole number",
    "int_parsing": "{input!r} is not a whole number",
    "int_from_float": "{input!r} is not a whole number",
    "int_parsing_size": "{input!r} is too large",
    "float_type": "{input!r} is not a number",
    "float_parsing": "{input!r} is not a number",
    "finite_number": "{input!r} is not a finite number",
    "bool_type": "{input!r} is neither true nor false",
    "bool_parsing": "{input!r} is neither true nor false",
    "greater_than": "{input} is too small: use more than {gt}",
    "greater_than_equal": "{input} is too small: use {ge} or more",
    "less_than_equal": "{input} is too large: use at most {le}",
    "literal_error": "{input!r} is not known: choose {expected}",
    "string_type": "{input!r} is not text",
    "string_unicode": "this is not valid text: it has bytes that are not UTF-8",
    "string_too_short": "this is empty",
    "string_too_long": "this is longer than {max_length} characters",
    "string_pattern_mismatch": "{input!r} is not a valid name",
    "list_type": "{input!r} is not a list",
    "dict_type": "{input!r} is not a table of names and values",
    "too_short": "this is empty",
    "too_long": "these are more than {max_length}",
    "missing": "this is missing",
}


class FieldError(InputError):
    """An input that cannot be used. field: its name among the values of the job."""

    def __init__(self, field: str, message: str):
        super().__init__(message)
        self.field = field


@contextmanager
def at_field(name: str) -> Iterator[None]:
    """While it lasts, errors are those of this field."""
    try:
        yield
    except T2IError as error:
        raise FieldError(name, str(error)) from error


def field_error(error: "ErrorDetails", known: str) -> FieldError:
    """The first of a validation's errors. known: the names that there are, for one that is not among them."""
    place = ".".join(map(str, error["loc"])) or "values"
    if error["type"] == "extra_forbidden":
        message = f"unknown: use one of {known}"
    elif words := WORDS.get(error["type"]):
        value: Any = error["input"]
        shown = shortened(value) if isinstance(value, str) else value if isinstance(value, int | float) else "this"
        message = words.format(**{**error.get("ctx", {}), "input": shown}).replace("'this'", "this")
    else:
        message = error["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
    return FieldError(place.partition(".")[0], f"{place}: {message}")


def in_words(error: object) -> str:
    """One line without the shell's flags: `--entropy-strength` is "entropy strength" for who has no shell."""
    return FLAG.sub(lambda flag: flag.group(1).replace("-", " "), " ".join(str(error).split()))
