"""From rows to figures: every metric of every method with its interval, and methods compared in pairs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from t2i_tools.evaluation.reports.protocol import Protocol
from t2i_tools.evaluation.runs.rows import MergedRow, asked_size
from t2i_tools.images.sizes import Size, format_size
from t2i_tools.metrics import (
    METRICS,
    Interval,
    cluster_bootstrap,
    equivalence,
    holm,
    mcnemar,
    paired_bootstrap,
    paired_shares,
    paired_test,
    share,
    wilson,
)
from t2i_tools.metrics.counts import first

SHARES = ("exact", "exact_alone", "off_by_one")
RATIOS = ("precision", "recall", "f1")  # no means over items, so that no test of a mean applies
CLIP = ("clip", "clip_gap")


@dataclass(frozen=True)
class Group:
    """One method at one size. figures: name -> interval; only items that are done and have a count go into them."""

    name: str
    rows: list[MergedRow]
    figures: dict[str, Interval]
    budget: float | None

    @property
    def method(self) -> str:
        """The method of all its rows."""
        return self.rows[0]["method"]

    @property
    def size(self) -> Size | None:
        """(height, width) in pixels that was asked for."""
        return asked_size(self.rows[0])

    def number(self, status: str) -> int:
        """How many items are "ok", "error" or "missing"."""
        return sum(row["status"] == status for row in self.rows)


@dataclass(frozen=True)
class Comparison:
    """group - baseline in one figure, over the pairs that both have.

    p_holm: the primary figure is corrected among its own comparisons, and not at all where there is one.
    """

    group: str
    baseline: str
    figure: str
    difference: Interval
    p: float
    p_holm: float | None
    equivalent: bool | None


@dataclass(frozen=True)
class Summary:
    """groups in the manifest's order, and each compared with what differs from it in one thing (`_references`)."""

    groups: list[Group]
    comparisons: list[Comparison]
    protocol: Protocol


def summarize(rows: Sequence[MergedRow], protocol: Protocol) -> Summary:
    """The figures of an evaluation's rows, resampled by the protocol's unit. Raises InputError."""
    parts = split_groups(rows)
    groups = [_group(name, part, protocol) for name, part in parts.items()]
    pairs = zip(groups, _references(groups, protocol), strict=True)
    raw = [found for group, other in pairs if group is not other for found in _compare(group, other, protocol)]
    others = holm({str(i): one.p for i, one in enumerate(raw) if one.figure != protocol.primary})
    primary = {str(i): one.p for i, one in enumerate(raw) if one.figure == protocol.primary}
    corrected = others | (holm(primary) if len(primary) > 1 else {})
    comparisons = [replace(one, p_holm=corrected.get(str(i))) for i, one in enumerate(raw)]
    return Summary(groups, comparisons, protocol)


def split_groups(rows: Sequence[MergedRow]) -> dict[str, list[MergedRow]]:
    """Name -> rows of each method, and of each size where there are several."""
    are_several = len({size for row in rows if (size := asked_size(row))}) > 1
    groups: dict[str, list[MergedRow]] = {}
    for row in rows:
        size = asked_size(row)
        name = f"{row['method']} {format_size(size)}" if are_several and size else row["method"]
        groups.setdefault(name, []).append(row)
    return groups


def pair(row: MergedRow) -> tuple[Any, ...]:
    """What items of different methods and sizes have in common."""
    return row["prompt"], row.get("label"), row.get("count"), row["seed"]


def counted(rows: Sequence[MergedRow]) -> list[MergedRow]:
    """The rows whose count was judged."""
    return [row for row in rows if row["status"] == "ok" and "exact" in row]


def cells(rows: Sequence[MergedRow]) -> dict[tuple[str, int], Interval]:
    """(class, count) -> share of exact counts."""
    table: dict[tuple[str, int], list[bool]] = {}
    for row in counted(rows):
        table.setdefault((row["label"], row["count"]), []).append(row["exact"])
    return {cell: wilson(sum(right), len(right)) for cell, right in sorted(table.items())}


def _group(name: str, rows: list[MergedRow], protocol: Protocol) -> Group:
    done = counted(rows)
    clusters = protocol.clusters(done)
    figures = {}
    if done:
        for figure, metric in METRICS.items():
            figures[figure] = _interval(figure, _columns(figure, done), clusters, metric.value, protocol.level)
    scored = [row for row in rows if row["status"] == "ok"]
    for figure in CLIP:
        having = [row for row in scored if _clip(figure, row) is not None]
        if having:
            owners = protocol.clusters(having)
            figures[figure] = _interval(figure, _columns(figure, having), owners, first, protocol.level)
    passes = [row["denoiser"] for row in scored if "denoiser" in row]
    return Group(name, rows, figures, float(np.mean(passes)) if passes else None)


def _columns(figure: str, rows: Sequence[MergedRow]) -> np.ndarray:
    """(n, d) float64: what is resampled."""
    if figure in CLIP:
        return np.array([[_clip(figure, row)] for row in rows], dtype=np.float64)
    return METRICS[figure].columns(*([row[name] for row in rows] for name in ("count", "found", "others")))


def _clip(figure: str, row: MergedRow) -> float | None:
    if figure == "clip" or row.get("clip") is None:
        return row.get("clip")
    return row["clip"] - row["clip_mismatched"] if "clip_mismatched" in row else None


def _interval(figure: str, columns: np.ndarray, clusters: list[Any], statistic: Any, level: float) -> Interval:
    if figure in SHARES:
        return share(columns[:, 0], clusters, level=level)
    return cluster_interval(columns, clusters, statistic, level)


def cluster_interval(columns: Any, clusters: Sequence[Any], statistic: Callable[..., Any], level: float) -> Interval:
    """A figure of the columns' means (n, d) -> (d,), with its interval; from one cluster alone without bounds."""
    if len(set(clusters)) < 2:
        return Interval(float(statistic(np.mean(columns, axis=0))), np.nan, np.nan, level, len(set(clusters)))
    return cluster_bootstrap(columns, clusters, statistic=statistic, level=level)


def _references(groups: Sequence[Group], protocol: Protocol) -> list[Group]:
    """For each group the baseline method at the same size, and for that method itself the first of its sizes."""
    baseline = protocol.baseline_of([group.method for group in groups])
    usual = [group for group in groups if group.method == baseline]
    at_size = {group.size: group for group in usual}
    return [usual[0] if group in usual else at_size.get(group.size, usual[0]) for group in groups]


def _compare(group: Group, baseline: Group, protocol: Protocol) -> list[Comparison]:
    ours = {pair(row): row for row in counted(group.rows)}
    theirs = {pair(row): row for row in counted(baseline.rows)}
    both = [key for key in ours if key in theirs]
    a, b = [ours[key] for key in both], [theirs[key] for key in both]
    clusters = protocol.clusters(a)
    if len(set(clusters)) < 2:
        return []
    figures = [name for name in (*METRICS, "clip") if name in group.figures and name in baseline.figures]
    figures = [name for name in figures if name not in RATIOS]
    if "clip" in figures and not all("clip" in row for row in (*a, *b)):
        figures.remove("clip")
    return [_one(group.name, baseline.name, figure, a, b, clusters, protocol) for figure in figures]


def _one(
    group: str,
    baseline: str,
    figure: str,
    a: list[MergedRow],
    b: list[MergedRow],
    clusters: list[Any],
    protocol: Protocol,
) -> Comparison:
    x, y = _columns(figure, a), _columns(figure, b)
    metric = METRICS.get(figure)
    statistic = metric.value if metric else first
    if figure in SHARES:
        difference = paired_shares(x[:, 0], y[:, 0], clusters, level=protocol.level)
    else:
        difference = paired_bootstrap(x, y, clusters, statistic=statistic, level=protocol.level)
    if figure in SHARES and len(set(clusters)) == len(clusters):
        p = mcnemar(x[:, 0], y[:, 0]).p
    else:
        p = paired_test(x[:, 0], y[:, 0], clusters)
    equivalent = None
    if figure == protocol.primary and figure != "rmse":
        equivalent = equivalence(x[:, 0], y[:, 0], protocol.margin, clusters).equivalent
    return Comparison(group, baseline, figure, difference, p, None, equivalent)
