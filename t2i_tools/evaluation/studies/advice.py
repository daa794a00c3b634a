"""What to do at a size, from what was measured at sizes near it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, TypedDict

from t2i_tools.errors import InputError
from t2i_tools.evaluation.rows_io import write_text
from t2i_tools.images.sizes import Size, check_size, format_size
from t2i_tools.metrics.interval import Interval

if TYPE_CHECKING:
    from t2i_tools.evaluation.studies.size_study import SizeFigures

FORMAT = 1
OFF = "plain"
# Method of an evaluation -> the options of `t2i generate` that switch it on. Others are compared and not advised.
OPTIONS = {
    OFF: "",
    "entropy_scaling": "--entropy-scaling",
    "entropy_log": "--entropy-scaling --entropy-rule log",
    "entropy_half": "--entropy-scaling --entropy-strength 0.5",
    "entropy_opposite": "--entropy-scaling --entropy-strength -1",
    "entropy_extreme": "--entropy-scaling --entropy-strength 16",
    "entropy_auto": "--entropy-scaling --entropy-strength auto",
    "two_pass": "--two-pass",
    "deep_shrink": "--deep-shrink",
}
CONTROLS = ("entropy_log", "entropy_half", "entropy_opposite", "entropy_extreme")  # compared, and never advised
REACH = math.log(1.5)  # a measured size speaks for sizes up to half as large again


@dataclass(frozen=True)
class Point:
    """One method at one size, (height, width) in pixels. exact: share of exact counts; difference: from off."""

    size: Size
    method: str
    exact: Interval
    difference: Interval | None = None


@dataclass(frozen=True)
class Evidence:
    """What was measured of one model. fingerprint: its own. split: "dev" or "test". prompts: at each size."""

    model: str
    fingerprint: str
    native: Size
    split: str
    prompts: int
    points: list[Point]


@dataclass(frozen=True)
class Advice:
    """method: its name, None where nothing was measured. points: what it rests on. why: in a sentence."""

    method: str | None
    points: list[Point]
    why: str

    @property
    def options(self) -> str | None:
        """The options of `t2i generate`."""
        return None if self.method is None else OPTIONS[self.method]


class AdviceLoss(TypedDict):
    """The best method's share at a size minus the advised one's; None where that was not measured."""

    size: str
    advised: str
    loss: float | None


def advise(evidence: Evidence | None, size: Size, native: Size | None) -> Advice:
    """The method shown to draw more exact counts than off at the nearest measured size; off where none was.

    Shown is what has its bound above 0 when the bounds of all methods and sizes that may be advised hold together
    (Bonferroni). A control is never advised.

    evidence: None where there is none for this model. native: the model's own size, where nothing needs to be done.
    """
    if size == native:
        return Advice(OFF, [], "this is the model's own size")
    if evidence is None:
        return Advice(None, [], "there is no evidence for these weights")
    near = nearest(evidence, size)
    if near is None:
        known = ", ".join(sorted({format_size(point.size) for point in evidence.points}))
        return Advice(None, [], f"no measured size is near it: {known}")
    points = [point for point in evidence.points if point.size == near]
    tried = [point for point in evidence.points if point.difference and point.method not in CONTROLS]
    better = [
        (one.difference.estimate, one.method)
        for one in points
        if one in tried and one.difference and corrected_low(one.difference, len(tried)) > 0
    ]
    if all(point.method == OFF for point in points):
        return Advice(OFF, points, f"at the nearest size measured, {format_size(near)}, no method was tried")
    if not better:
        return Advice(OFF, points, f"no method was shown to be better than off at {format_size(near)}")
    _, best = max(better, key=lambda pair: pair[0])
    return Advice(best, points, f"it was better than off at {format_size(near)}")


def corrected_low(difference: Interval, tests: int) -> float:
    """The lower bound that holds for so many tests together, from that of one: further off as the normal law says."""
    alone, together = (NormalDist().inv_cdf(1 - (1 - difference.level) / (2 * m)) for m in (1, tests))
    return difference.estimate - (difference.estimate - difference.low) * together / alone


def nearest(evidence: Evidence, size: Size) -> Size | None:
    """The measured size whose sides differ least, by their logarithms; None beyond REACH."""
    sizes = {point.size for point in evidence.points}
    near = min(sizes, key=lambda one: (_distance(one, size), one), default=None)
    return near if near and _distance(near, size) <= REACH else None


def held_out(evidence: Evidence) -> list[AdviceLoss]:
    """`losses` at each measured size, had it not been measured."""
    rows = []
    for size in sorted({point.size for point in evidence.points} - {evidence.native}):
        here, rest = ([p for p in evidence.points if (p.size == size) is chosen] for chosen in (True, False))
        rows += losses(replace(evidence, points=rest), replace(evidence, points=here))
    return rows


def losses(evidence: Evidence, measured: Evidence) -> list[AdviceLoss]:
    """What advice by `evidence` loses at the sizes of `measured`: the best method's share minus the advised one's."""
    rows: list[AdviceLoss] = []
    for size in sorted({point.size for point in measured.points} - {evidence.native}):
        here = {point.method: point.exact.estimate for point in measured.points if point.size == size}
        advice = advise(evidence, size, evidence.native)
        loss = max(here.values()) - here[advice.method] if advice.method in here else None
        rows.append({"size": format_size(size), "advised": advice.method or "not measured", "loss": loss})
    return rows


def write_evidence(path: Path, evidence: Evidence) -> None:
    """As JSON, complete or not at all. Raises InputError."""
    write_text(path, json.dumps({"format": FORMAT, **asdict(evidence)}, indent=1) + "\n")


def read_evidence(path: Path) -> Evidence:
    """What `write_evidence` wrote. Raises InputError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            raise ValueError
        points = [_point(point) for point in values.pop("points")]
        return Evidence(**{**values, "native": _size(values["native"]), "points": points})
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} holds no evidence of examples/evaluations/sizes/run.py, or another version's"
        ) from error


def points_of(summaries: Mapping[Size, Sequence[SizeFigures]]) -> list[Point]:
    """The points of `summarize_size`'s figures, for the methods that can be advised."""
    return [
        Point(size, one.method, one.figures["exact"], one.against["exact"].difference if one.against else None)
        for size, methods in summaries.items()
        for one in methods
        if one.method in OPTIONS
    ]


def _point(values: Mapping[str, Any]) -> Point:
    if values["method"] not in OPTIONS:
        raise ValueError("no method of that name can be advised")
    difference = values["difference"] and _interval(values["difference"])
    return Point(_size(values["size"]), values["method"], _interval(values["exact"]), difference)


def _interval(values: Mapping[str, Any]) -> Interval:
    interval = Interval(**values)
    if not all(isinstance(value, int | float) for value in asdict(interval).values()):
        raise ValueError("an interval is made of numbers")
    return interval


def _size(value: Any) -> Size:
    check_size(value)
    height, width = value
    return height, width


def _distance(one: Size, other: Size) -> float:
    return math.hypot(*(math.log(a / b) for a, b in zip(one, other, strict=True)))
