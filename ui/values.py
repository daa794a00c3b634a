"""From what a page or a client sends to checked values: unknown names and wrong types are refused in one line."""

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WrapValidator

from t2i_tools.images.generate import MAX_SEED, Request
from t2i_tools.images.sizes import Size, parse_size
from t2i_tools.workflows.limits import Limits

from .errors import FieldError, at_field, field_error

if TYPE_CHECKING:
    from .options import AppOptions
    from .registry import Registry

Prompt = Annotated[str, Field(max_length=20_000)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Steps = Annotated[int, Field(ge=1)]
Guidance = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
Strength = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
ScalingStrength = Annotated[
    float,
    Field(ge=-10, le=10),
    WrapValidator(lambda value, read: value if value == "auto" else read(value)),
]
Name = Annotated[str, Field(max_length=200)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class Values(BaseModel):
    """Values whose names and types are checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class JobValues(Values):
    """Base of the values that a kind of job takes."""

    def validated(self, options: "AppOptions", registry: "Registry") -> "JobValues":
        """With what is drawn or derived filled in, and checked as far as that goes without the model.

        Raises InputError.
        """
        raise NotImplementedError

    def planned(self) -> list[Request]:
        """The images that a job of these values makes, as far as their time can be estimated; else none."""
        return []

    def most_costs(self) -> list[int]:
        """The most that each planned image may cost, in plain images' worth: the budget for a search, else 1."""
        return [1] * len(self.planned())


AnyValues = TypeVar("AnyValues", bound=Values)


def read_values(kind: type[AnyValues], raw: dict[str, Any]) -> AnyValues:
    """The values, converted; those that are None or "" are left to their default. Raises InputError."""
    try:
        return kind(**{name: value for name, value in raw.items() if value is not None and value != ""})
    except ValidationError as error:
        raise field_error(error.errors()[0], ", ".join(kind.model_fields)) from None


def size_of(text: str | None) -> Size | None:
    """(height, width) of "WxH"; None for no text. Raises InputError."""
    return parse_size(text) if text else None


def check_prompt(text: str) -> None:
    """Raise FieldError for one of which no image can be made."""
    with at_field("prompt"):
        Request(text, 0)


def check_size(text: str | None, limits: Limits) -> Size | None:
    """(height, width) of "WxH" within the limit. Raises FieldError."""
    with at_field("size"):
        size = size_of(text)
    if size and size[0] * size[1] > limits.pixels:
        pixels = f"{size[0] * size[1]:,} pixels"
        raise FieldError("size", f"size {text} is {pixels}: this server makes up to {limits.pixels:,}")
    return size


def check_at_most(name: str, value: int | None, most: int) -> None:
    """Raise FieldError for more than this server does."""
    if value is not None and value > most:
        raise FieldError(name, f"{name} {value}: this server allows up to {most}")
