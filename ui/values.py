"""From what a page or a client sends to checked values: unknown names and wrong types are refused in one line."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from t2i_tools.errors import InputError
from t2i_tools.generation import MAX_SEED
from t2i_tools.sizes import Size, parse_size
from t2i_tools.ui.limits import Limits

Prompt = Annotated[str, Field(max_length=20_000)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Steps = Annotated[int, Field(ge=1)]
Guidance = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
Strength = Annotated[float, Field(gt=0, le=1)]
Name = Annotated[str, Field(max_length=200)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class Values(BaseModel):
    """Base of the values that a kind of job takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


AnyValues = TypeVar("AnyValues", bound=Values)


def read_values(kind: type[AnyValues], given: dict[str, Any]) -> AnyValues:
    """The values, converted; those that are None or "" are left to their default. Raises InputError."""
    try:
        return kind(**{name: value for name, value in given.items() if value is not None and value != ""})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "values"
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"unknown; this takes {', '.join(kind.model_fields)}"
        elif first["type"] == "missing":
            message = "missing"
        raise InputError(f"{place}: {message[0].lower()}{message[1:]}") from None


def check_size(text: str | None, limits: Limits) -> Size | None:
    """(height, width) of "WxH" within the limit. Raises InputError."""
    if text is None:
        return None
    size = parse_size(text)
    if size[0] * size[1] > limits.pixels:
        raise InputError(f"size {text} is {size[0] * size[1]:,} pixels: this server makes up to {limits.pixels:,}")
    return size


def check_at_most(name: str, value: int | None, most: int) -> None:
    """Raise InputError for more than this server does."""
    if value is not None and value > most:
        raise InputError(f"{name} {value}: this server does up to {most}")
