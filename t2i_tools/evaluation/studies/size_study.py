"""How well methods draw at sizes that the model was not trained at: figures, references, calibrated judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from t2i_tools.detectors.detections import Detections
from t2i_tools.errors import InputError
from t2i_tools.evaluation.reports.summary import pair
from t2i_tools.evaluation.runs.rows import MergedRow
from t2i_tools.images.sizes import Size, format_size
from t2i_tools.metrics import (
    FIGURES,
    Interval,
    cluster_bootstrap,
    confusion_matrix,
    corrected_accuracy,
    equivalence,
    found_counts,
    holm,
    object_columns,
    paired_bootstrap,
    paired_shares,
    paired_test,
    share,
    threshold_sweep,
    wilson,
)
from t2i_tools.metrics.objects import COLUMNS, SHARES, TESTED

if TYPE_CHECKING:
    from t2i_tools.evaluation.reports.protocol import Protocol

DRAFT_THRESHOLD = 0.1  # at which the judge looks; what counts is decided by its calibration


@dataclass(frozen=True)
class Calibration:
    """A judge at one size. threshold: the least score that counts as an object, chosen on half of the images.

    exact, confusion: how often it counts the other half right, and which true count (row) it takes for which. area:
    mean pixels of the boxes that it finds.
    """

    threshold: float
    exact: Interval
    confusion: np.ndarray
    area: float


@dataclass(frozen=True)
class Difference:
    """A method's figure minus the baseline's. p: None where the figure is not a mean; p_holm: corrected by `correct`.

    equivalent: whether the primary figure's difference lies within the margin (TOST), None for other figures.
    """

    difference: Interval
    p: float | None = None
    p_holm: float | None = None
    equivalent: bool | None = None


@dataclass(frozen=True)
class SizeFigures:
    """One method at one size. n: images. against: figure -> how it differs from the baseline's, empty for that itself.

    extra_columns: further columns of `figures_table`, as text.
    """

    method: str
    n: int
    figures: dict[str, Interval]
    against: dict[str, Difference] = field(default_factory=dict)
    extra_columns: dict[str, str] = field(default_factory=dict)


def calibrate(found: Sequence[Detections], labels: Sequence[str], counts: Sequence[int], usual: float) -> Calibration:
    """From what the judge saw, at a low threshold, in images of known counts, 0 to the largest.

    Of all thresholds with the most exact counts the one next to `usual`, which is the judge's own, is taken. Raises
    InputError.
    """
    true = np.asarray(counts)
    choose, check = slice(0, None, 2), slice(1, None, 2)
    sweep = threshold_sweep(found[choose], true[choose], labels[choose])
    best = sweep.thresholds[sweep.exact == sweep.exact.max()]
    threshold = float(best[np.abs(best - usual).argmin()])
    seen, _ = found_counts(found[check], labels[check], threshold)
    right = seen == true[check]
    table = confusion_matrix(true[check], seen, int(true.max()))
    boxes = np.concatenate([np.asarray(one.boxes)[np.asarray(one.scores) >= threshold] for one in found])
    area = float(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).mean())
    return Calibration(threshold, wilson(int(right.sum()), len(right)), table, area)


def fitting(calibrations: Sequence[Calibration], rows: Sequence[MergedRow]) -> Calibration:
    """The one made on images whose objects are nearest in area to those in the rows."""

    def distance(one: Calibration) -> float:
        means = columns_of(rows, one.threshold).mean(0)
        return abs(float(np.log(FIGURES["area"](means) / one.area)))

    return min(calibrations, key=distance)


def columns_of(rows: Sequence[MergedRow], threshold: float) -> np.ndarray:
    """(n, 7): `object_columns` of an evaluation's finished rows."""
    found = [sure(row, threshold) for row in rows]
    sizes = [(row["height"], row["width"]) for row in rows]
    return object_columns(found, [row["label"] for row in rows], [row["count"] for row in rows], sizes)


def sure(row: MergedRow, threshold: float) -> Detections:
    """The objects of a row that score the threshold or more."""
    import torch

    kept = [one for one in row["objects"] if one["score"] >= threshold]
    boxes = torch.tensor([one["box"] for one in kept]).reshape(-1, 4)
    return Detections([one["label"] for one in kept], boxes, torch.tensor([one["score"] for one in kept]))


def summarize_size(rows: Sequence[MergedRow], calibration: Calibration, protocol: Protocol) -> list[SizeFigures]:
    """Every figure per method at one size, with its interval and its difference from the baseline's.

    "exact corrected" is what a judge without mistakes would have found. Pairs have the prompt and seed in common, and
    prompts are resampled; "equivalent": the primary figure's difference lies within the margin (TOST). Raises
    InputError.
    """
    methods = _by_method(rows)
    baseline = _baseline(methods, protocol)
    theirs = _drawn(methods[baseline], calibration.threshold)
    summaries = []
    for name, part in methods.items():
        one = figures_of(part, calibration, protocol.level)
        if name != baseline:
            one = replace(one, against=_compare(_drawn(part, calibration.threshold), theirs, protocol))
        summaries.append(one)
    return summaries


def correct(summaries: Mapping[Size, Sequence[SizeFigures]]) -> dict[Size, list[SizeFigures]]:
    """The summaries with p_holm of every test, over all sizes, methods and figures (Holm)."""
    tests = {
        (size, one.method, figure): test.p
        for size, methods in summaries.items()
        for one in methods
        for figure, test in one.against.items()
        if test.p is not None
    }
    corrected = holm(tests)
    return {
        size: [
            replace(
                one,
                against={
                    figure: replace(test, p_holm=corrected.get((size, one.method, figure)))
                    for figure, test in one.against.items()
                },
            )
            for one in methods
        ]
        for size, methods in summaries.items()
    }


def primary(
    sizes: Mapping[Size, tuple[Sequence[MergedRow], Calibration]], method: str, protocol: Protocol
) -> Difference:
    """The protocol's one comparison: a method's primary figure and the baseline's, over all these sizes together.

    sizes: rows and the judge's calibration at each. Raises InputError.
    """
    ours: dict[tuple[Any, ...], np.ndarray] = {}
    theirs: dict[tuple[Any, ...], np.ndarray] = {}
    for size, (rows, calibration) in sizes.items():
        methods = _by_method(rows)
        for part, name in ((ours, method), (theirs, _baseline(methods, protocol))):
            drawn = _drawn(methods.get(name, ()), calibration.threshold)
            part |= {(size, *key): columns for key, columns in drawn.items()}
    return _compare(ours, theirs, protocol)[protocol.primary]


def figures_of(rows: Sequence[MergedRow], calibration: Calibration, level: float) -> SizeFigures:
    """Every figure of the rows of one method, with its interval over prompts."""
    columns, prompts = columns_of(rows, calibration.threshold), [row["prompt"] for row in rows]
    figures = {
        name: share(columns[:, COLUMNS.index(name)], prompts, level=level)
        if name in SHARES
        else cluster_bootstrap(columns, prompts, statistic=figure, level=level)
        for name, figure in FIGURES.items()
    }
    asked, found = (columns[:, COLUMNS.index(name)].astype(int) for name in ("asked", "found"))
    figures["exact corrected"] = corrected_accuracy(asked, found, calibration.confusion, prompts, level=level)
    return SizeFigures(rows[0]["method"], len(rows), figures)


def figures_table(summaries: Mapping[Size, Sequence[SizeFigures]]) -> list[dict[str, str]]:
    """The summaries of several sizes as rows of text: each figure, and in brackets its difference from the baseline's.

    A star: its corrected p is 0.05 at most or, where there is no
    p, its interval does not hold 0.
    """
    table = []
    for size, methods in summaries.items():
        for one in methods:
            row = {"size": format_size(size), "method": one.method, "n": str(one.n)}
            for name in (*FIGURES, "exact corrected"):
                row[name] = str(one.figures.get(name, "-"))
                if against := one.against.get(name):
                    row[name] += f" ({against.difference.estimate:+.3f}{_star(against)})"
            table.append(row | one.extra_columns)
    names = dict.fromkeys(name for row in table for name in row)
    return [{name: row.get(name, "-") for name in names} for row in table]


def to_markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """A table of rows with the same names."""
    lines = [map(str, rows[0]), ["---"] * len(rows[0]), *(map(str, row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _by_method(rows: Sequence[MergedRow]) -> dict[str, list[MergedRow]]:
    """The finished rows of each method."""
    methods: dict[str, list[MergedRow]] = {}
    for row in rows:
        if row["status"] == "ok":
            methods.setdefault(row["method"], []).append(row)
    return methods


def _baseline(methods: Mapping[str, Any], protocol: Protocol) -> str:
    baseline = protocol.baseline or "plain"
    if baseline not in methods:
        raise InputError(f"there is no image of the baseline {baseline!r} to compare with: evaluate it too")
    return baseline


def _drawn(rows: Sequence[MergedRow], threshold: float) -> dict[tuple[Any, ...], np.ndarray]:
    """What pairs a row with another method's -> its columns."""
    return dict(zip(map(pair, rows), columns_of(rows, threshold), strict=True)) if rows else {}


def _compare(
    ours: Mapping[tuple[Any, ...], np.ndarray], theirs: Mapping[tuple[Any, ...], np.ndarray], protocol: Protocol
) -> dict[str, Difference]:
    """Each figure's difference; with p where it is a mean."""
    both = [key for key in ours if key in theirs]
    if not both:
        raise InputError("the methods have no prompt in common: evaluate them on the same prompts")
    x, y = (np.stack([part[key] for key in both]) for part in (ours, theirs))
    prompts = [key[-4] for key in both]  # see `pair`
    tests: dict[str, Difference] = {}
    for name, figure in FIGURES.items():
        if name not in TESTED:
            tests[name] = Difference(paired_bootstrap(x, y, prompts, statistic=figure, level=protocol.level))
            continue
        a, b = (z[:, COLUMNS.index(TESTED[name])] for z in (x, y))
        if name in SHARES:
            difference = paired_shares(a, b, prompts, level=protocol.level)
        else:
            difference = paired_bootstrap(x, y, prompts, statistic=figure, level=protocol.level)
        is_primary = name == protocol.primary
        equivalent = equivalence(a, b, protocol.margin, prompts).equivalent if is_primary else None
        tests[name] = Difference(difference, paired_test(a, b, prompts), equivalent=equivalent)
    return tests


def _star(against: Difference) -> str:
    if against.p_holm is not None:
        return "*" if against.p_holm <= 0.05 else ""
    return "*" if against.difference.low > 0 or against.difference.high < 0 else ""
