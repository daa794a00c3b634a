"""A job of count searches: its options, its goal, and what is said of it on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from t2i_tools.counting.methods import DEFAULT_BUDGET, DEFAULT_METHOD, GRADIENT, METHODS
from t2i_tools.errors import InputError
from t2i_tools.images.generate import Request
from t2i_tools.workflows.choices import check_applies
from t2i_tools.workflows.settings import with_defaults

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


# Option -> the methods that it changes.
USED_BY = {
    "lr": ("token", "token+best_of", "token+noise", "random_walk"),
    "grad_steps": GRADIENT,
    "checkpointing": GRADIENT,
    "early_look": tuple(name for name in METHODS if name != "plain" and ("best_of" in name or name not in GRADIENT)),
    "keep_image": ("bisection+best_of",),
}


@dataclass(frozen=True)
class SearchOptions:
    """How the images are looked for; each field is the option of the same name. Raises InputError."""

    budget: float = DEFAULT_BUDGET
    method: str = DEFAULT_METHOD
    counter: str | None = None
    label: str | None = None
    lr: float | None = None
    grad_steps: int | None = None
    checkpointing: bool = False
    early_look: bool = False
    keep_image: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"unknown method {self.method!r}: choose {', '.join(METHODS)}")
        for name, methods in USED_BY.items():
            if getattr(self, name):
                check_applies(f"--{name.replace('_', '-')}", "--method", [self.method], methods)

    def arguments(self) -> dict[str, Any]:
        """The arguments of `optimize_count` among them."""
        others = ("counter", "label", "keep_image")
        arguments = {name: value for name, value in asdict(self).items() if name not in others}
        return arguments | {"keep": "image" if self.keep_image else None}


def goal_of(wanted: dict[str, int], label: str | None) -> dict[str, Any]:
    """The goal as `optimize_count` takes it. Raises InputError."""
    if len(wanted) == 1:
        ((name, n),) = wanted.items()
        return {"n": n, "label": label or name}
    if label:
        raise InputError("--label goes with one class: name several classes as the detector does")
    return {"counts": wanted}


def default_template(names: Iterable[str], spoken: Callable[[str], str] = str) -> str:
    """ "a photo of {count} apples", or "a photo of {bottles} bottles and {glasses} glasses".

    spoken: from a name to the word for it.
    """
    names = list(names)
    if len(names) == 1:
        return f"a photo of {{count}} {spoken(names[0])}"
    return "a photo of " + " and ".join(f"{{{name}}} {spoken(name)}" for name in names)


def check_template(template: str, names: Iterable[str]) -> None:
    """Raise InputError where the number, or one of the numbers, has no place in the prompt."""
    from t2i_tools.counting.token import fill_template

    names = list(names)
    fill_template(template, dict.fromkeys(names if len(names) > 1 else ["count"], "n"))


def usual_settings(pipe: DiffusionPipeline, model: str) -> dict[str, Any]:
    """Steps and guidance that the model takes by itself."""
    request = with_defaults(Request("any", 0), pipe, model)
    return {"steps": request.steps, "guidance": request.guidance}


def tally(found: Mapping[str, int]) -> str:
    """ "apples: 7, cats: 1"."""
    return ", ".join(f"{name}: {count}" for name, count in found.items())


def kept_line(row: Mapping[str, Any]) -> str:
    """ ", 86 % of the plain image's objects in place, CLIP-I 0.97"; nothing for the plain image itself."""
    if len(row["history"]) < 2 or row.get("kept") is None:
        return ""
    line = f", {100 * row['kept']:.0f} % of the plain image's objects in place"
    return line if row.get("similarity") is None else f"{line}, CLIP-I {row['similarity']:.2f}"


def yield_line(rows: Sequence[Mapping[str, Any]], number: int) -> str:
    """ "3 of 20 exact, yield 60 %, 21 s an exact image, about 6 min left"."""
    exact, seconds = sum(row["exact"] for row in rows), sum(row["compute"]["seconds"] for row in rows)
    line = f"{exact} of {number} exact, yield {100 * exact / max(1, len(rows)):.0f} %"
    if not exact:
        return line
    each = seconds / exact
    rest = (number - exact) * each
    left = f", about {rest / 60:.0f} min left" if rest >= 90 else f", about {rest:.0f} s left" if rest else ""
    return f"{line}, {each:.0f} s an exact image{left}"
