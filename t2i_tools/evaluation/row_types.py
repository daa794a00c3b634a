"""Rows as they come from JSON, checked against the TypedDict that says what is in them."""

from collections.abc import Iterable, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

from t2i_tools.errors import InputError

Kind = TypeVar("Kind")
NUMBERS = {int: (int,), float: (int, float)}  # JSON writes 1.0 as 1 now and then; True is no number


def typed_rows(kind: type[Kind], rows: Iterable[Mapping[str, Any]], source: object) -> list[Kind]:
    """The same rows with their type.

    Args:
        kind: A TypedDict. Names that it does not have are allowed.
        rows: Of JSON's own types.
        source: Where they come from, for the error.

    Returns:
        The rows, unchanged.

    Raises:
        InputError: A row lacks a name, or has a value of another type.
    """
    rows = list(rows)
    for number, row in enumerate(rows, start=1):
        if name := unfit_name(row, kind):
            raise InputError(f"row {number} of {source} has no valid {name!r}: remove the row, or give another file")
    return cast("list[Kind]", rows)


def unfit_name(row: Mapping[str, Any], kind: type) -> str | None:
    """The first name of a TypedDict that is missing in a row, or whose value is of another type."""
    required: frozenset[str] = kind.__required_keys__  # type: ignore[attr-defined]  # every TypedDict has it
    for name, hint in type_hints(kind).items():
        if name not in row:
            if name in required:
                return name
        elif not fits(row[name], hint):
            return name
    return None


@cache
def type_hints(kind: type) -> dict[str, Any]:
    """Name -> type of a TypedDict."""
    return get_type_hints(kind)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value of JSON is of a type; a list counts as a tuple of its length."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if hint is NoneType:
        return value is None
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if origin is list:
        return isinstance(value, list) and all(fits(one, parts[0]) for one in value)
    if origin is tuple:
        return isinstance(value, list) and len(value) == len(parts) and all(map(fits, value, parts))
    if origin is dict:
        return isinstance(value, dict) and all(fits(one, parts[1]) for one in value.values())
    if is_typeddict(hint):
        return isinstance(value, dict) and unfit_name(value, hint) is None
    return type(value) in NUMBERS.get(hint, (hint,))
