"""The rows of `search_study.run_cell` compared: figures by method, gains over the baseline, curves over compute.

Intervals resample the protocol's unit, class x n unless it says otherwise. All pairs share class, n and seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from t2i_tools.errors import InputError
from t2i_tools.evaluation.reports.protocol import Protocol
from t2i_tools.evaluation.reports.summary import SHARES, cluster_interval
from t2i_tools.evaluation.rows_io import write_text
from t2i_tools.evaluation.studies.rows import BriefSearchRow, SearchRow
from t2i_tools.evaluation.studies.search_study import judged_at
from t2i_tools.evaluation.studies.size_study import to_markdown
from t2i_tools.metrics import (
    METRICS,
    Interval,
    confusion_matrix,
    equivalence,
    holm,
    mcnemar,
    paired_shares,
    paired_test,
    share,
)
from t2i_tools.metrics.counts import first

Cost: TypeAlias = Literal["denoiser", "backward", "recomputed", "vae", "detector"]
Field: TypeAlias = str | int | float | Interval | None
Table: TypeAlias = list[dict[str, Field]]
BUDGETS = (1, 2, 4, 8, 16, 32)
FIGURES = ("exact", "off_by_one", "mae", "rmse", "bias")
COSTS: tuple[Cost, ...] = ("denoiser", "backward", "recomputed", "vae", "detector")  # no seconds: runs differ in load
SIZES = ("small", "middle", "large")
# Columns of a pair (ours, the baseline's): right, error and what the counter says is right, CLIP, the baseline's gap.
PAIR = ("right", "right_before", "error", "error_before", "counted", "counted_before", "clip", "clip_before", "gap")
GAINS: dict[str, Callable[[Mapping[str, np.ndarray]], np.ndarray]] = {
    "exact gained": lambda m: m["right"] - m["right_before"],
    "MAE, share left": lambda m: _over(m["error"], m["error_before"]),
    "transfer": lambda m: _over(m["right"] - m["right_before"], m["counted"] - m["counted_before"]),
    "CLIP lost, share of gap": lambda m: _over(m["clip_before"] - m["clip"], m["gap"]),
}


def report(rows: Sequence[SearchRow], protocol: Protocol, budgets: Sequence[float] = BUDGETS) -> dict[str, Table]:
    """Name -> table: methods, gains over the baseline, exact by budget and by object size, confusion by method.

    "transfer" is the judge's gain over the counter's; "CLIP lost" is a share of what the baseline's right prompt has
    over a wrong one. Raises InputError where the baseline has no rows.
    """
    methods: dict[str, list[SearchRow]] = {}
    for row in rows:
        methods.setdefault(row["method"], []).append(row)
    baseline = protocol.baseline_of(list(methods))
    if baseline is None:
        raise InputError("there is no search to report")
    tables = {
        "methods": [figures(name, part, protocol) for name, part in methods.items()],
        "gains": gains(methods, baseline, protocol),
        "exact by budget": [curve(name, part, budgets, protocol) for name, part in methods.items()],
        "exact by object size": by_size(methods, baseline, protocol),
    }
    return tables | {f"asked x counted, {name}": confusion(part) for name, part in methods.items()}


def write_tables(folder: Path, tables: Mapping[str, Table]) -> str:
    """report.json, and report.md, whose text is returned."""
    sections = [f"## {name}\n\n{to_markdown(_short(table))}\n" for name, table in tables.items() if table]
    write_text(folder / "report.json", json.dumps(tables, indent=1, default=_plain))
    write_text(folder / "report.md", text := "\n".join(sections))
    return text


def figures(method: str, rows: Sequence[SearchRow], protocol: Protocol) -> dict[str, Field]:
    """One method: every figure by the judge, exact by the others and the counter, CLIP, what a search costs."""
    true, judged = ([row[name] for row in rows] for name in ("count", "judged"))
    line: dict[str, Field] = {"method": method, "n": len(rows)}
    for name in FIGURES:
        columns, value = METRICS[name].columns(true, judged), METRICS[name].value
        line[name] = (
            _share(columns[:, 0], rows, protocol) if name in SHARES else interval(columns, rows, protocol, value)
        )
    for judge in list(rows[0]["judges"])[1:]:
        line[f"exact, {judge}"] = _share([row["judges"][judge] == row["count"] for row in rows], rows, protocol)
    line["exact, counter"] = _share([row["counted"] == row["count"] for row in rows], rows, protocol)
    line["clip"] = interval(np.array([[row["clip"]] for row in rows]), rows, protocol)
    line["images"] = float(np.mean([row["images"] for row in rows]))
    return line | {name: float(np.mean([row["compute"][name] for row in rows])) for name in COSTS}


def gains(methods: Mapping[str, Sequence[SearchRow]], baseline: str, protocol: Protocol) -> Table:
    """One line per method: GAINS with intervals, exact McNemar over pairs, tests by cluster corrected together (Holm).

    "equivalent": the difference in exact lies within the protocol's margin (TOST).
    """
    before = {row["key"]: row for row in methods[baseline]}
    table: Table = []
    tests: dict[tuple[str, str], float] = {}
    for method, rows in methods.items():
        pairs = [(row, before[row["key"]]) for row in rows if row["key"] in before]
        if method == baseline or not pairs:
            continue
        mine, columns = [row for row, _ in pairs], np.array([_pair(*pair) for pair in pairs], dtype=np.float64)
        line: dict[str, Field] = {"method": method, "pairs": len(pairs)}
        for name, gain in GAINS.items():
            line[name] = interval(columns, mine, protocol, lambda m, gain=gain: gain(_named(m)))
        line["McNemar p"] = mcnemar(columns[:, 0], columns[:, 1]).p
        clusters = protocol.clusters(mine)
        if len(set(clusters)) > 1:
            tests[method, "p, exact"] = paired_test(columns[:, 0], columns[:, 1], clusters)
            tests[method, "p, error"] = paired_test(columns[:, 2], columns[:, 3], clusters)
            line["exact gained"] = paired_shares(columns[:, 0], columns[:, 1], clusters, level=protocol.level)
            line["equivalent"] = equivalence(columns[:, 0], columns[:, 1], protocol.margin, clusters).equivalent
        table.append(line)
    corrected = holm({" ".join(key): p for key, p in tests.items()})
    for line in table:
        ours = [key for key in tests if key[0] == line["method"]]
        line |= {f"{key[1]} (Holm)": corrected[" ".join(key)] for key in ours}
    return table


def curve(
    method: str, rows: Sequence[BriefSearchRow], budgets: Sequence[float], protocol: Protocol
) -> dict[str, Field]:
    """Budget in plain images' worth -> share of searches whose best image so far the judge finds exact."""
    shares = {f"{b:g}": _share([judged_at(row, b) == row["count"] for row in rows], rows, protocol) for b in budgets}
    return {"method": method, **shares}


def race(
    rows: Sequence[BriefSearchRow], rival: str, protocol: Protocol, budgets: Sequence[float] = BUDGETS, head: float = 1
) -> Table:
    """Budget -> how much more often than the rival a method has found an exact image by `head` times that budget.

    head: 0.5 gives the rival twice the compute. Pairs share class, n and seed.
    """
    rivals = {row["key"]: row for row in rows if row["method"] == rival}
    table = []
    for method in dict.fromkeys(row["method"] for row in rows if row["method"] != rival):
        pairs = [(row, rivals[row["key"]]) for row in rows if row["method"] == method and row["key"] in rivals]
        if not pairs:
            continue
        clusters = protocol.clusters(row for row, _ in pairs)
        line: dict[str, Field] = {"method": method, "pairs": len(pairs)}
        for budget in budgets:
            right = [
                (judged_at(ours, head * budget) == ours["count"], judged_at(other, budget) == other["count"])
                for ours, other in pairs
            ]
            first, second = zip(*right, strict=True)
            line[f"{budget:g}"] = paired_shares(first, second, clusters, level=protocol.level)
        table.append(line)
    return table


def by_size(methods: Mapping[str, Sequence[SearchRow]], baseline: str, protocol: Protocol) -> Table:
    """Exact by the size of the objects in the baseline's image, in three equal parts of its pairs."""
    areas = {row["key"]: row["area"] for row in methods[baseline] if row["area"] is not None}
    limits: Any = np.quantile(list(areas.values()), [1 / 3, 2 / 3]) if areas else []
    third = {key: SIZES[int(np.searchsorted(limits, area))] for key, area in areas.items()}
    table: Table = []
    for method, rows in methods.items():
        parts = {size: [row for row in rows if third.get(row["key"]) == size] for size in SIZES}
        shares = {
            s: _share([r["judged"] == r["count"] for r in part], part, protocol) for s, part in parts.items() if part
        }
        table.append({"method": method, **{size: shares.get(size, "-") for size in SIZES}})
    return table


def confusion(rows: Sequence[SearchRow]) -> Table:
    """One line per number asked for: how often each number was counted."""
    table = confusion_matrix([row["count"] for row in rows], [row["judged"] for row in rows])
    return [
        {"asked": n} | {str(m): number for m, number in enumerate(line)}
        for n, line in enumerate(table.tolist())
        if any(line)
    ]


def interval(columns: Any, rows: Sequence[SearchRow], protocol: Protocol, statistic: Callable = first) -> Interval:
    """A figure of the columns' means, resampled by the protocol's unit."""
    return cluster_interval(columns, protocol.clusters(rows), statistic, protocol.level)


def _share(right: Sequence[bool] | np.ndarray, rows: Sequence[BriefSearchRow], protocol: Protocol) -> Interval:
    """The share of what is right."""
    return share(right, protocol.clusters(rows), level=protocol.level)


def _pair(ours: SearchRow, before: SearchRow) -> tuple[float, ...]:
    """The values of PAIR."""
    values: list[float] = []
    for what in (
        lambda row: row["judged"] == row["count"],
        lambda row: abs(row["judged"] - row["count"]),
        lambda row: row["counted"] == row["count"],
        lambda row: row["clip"],
    ):
        values += [what(ours), what(before)]
    return *values, before["clip"] - before["clip_mismatched"]


def _named(means: np.ndarray) -> dict[str, np.ndarray]:
    """The last axis of (..., 9) by the names of PAIR."""
    return dict(zip(PAIR, np.moveaxis(means, -1, 0), strict=True))


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """A ratio; nan where there is nothing below."""
    return above / np.where(below == 0, np.nan, below)


def _short(table: Table) -> Table:
    """A table with four digits per number."""
    return [{name: f"{v:.4g}" if isinstance(v, float) else v for name, v in line.items()} for line in table]


def _plain(interval: Interval) -> dict[str, Any]:
    """An interval for JSON, which has no nan."""
    values = {field.name: getattr(interval, field.name) for field in fields(interval)}
    return {name: value if np.isfinite(value) else None for name, value in values.items()}
