"""The report of an evaluation: one HTML file that needs nothing beside it, a CSV, a Markdown table."""

import base64
import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from t2i_tools.errors import InputError, UnsupportedModelError, install
from t2i_tools.evaluation.reports import plots
from t2i_tools.evaluation.reports.protocol import (
    Protocol,
    parse_protocol,
    read_protocol,
    read_values,
    test_runs,
)
from t2i_tools.evaluation.reports.summary import Group, Summary, cells, counted, pair, split_groups, summarize
from t2i_tools.evaluation.rows_io import write_text
from t2i_tools.evaluation.runs.manifest import Manifest, read_manifest
from t2i_tools.evaluation.runs.rows import MergedRow
from t2i_tools.images.open_image import open_image
from t2i_tools.images.sizes import format_size
from t2i_tools.metrics import Interval, confusion_matrix, threshold_sweep, wilson

TEMPLATE = Path(__file__).with_name("report.html.j2")
THUMBNAIL = 128
THRESHOLDS = [round(0.05 * step, 2) for step in range(1, 20)]
TITLES = {
    "exact": "exact",
    "exact_alone": "exact, nothing else",
    "off_by_one": "off by one at most",
    "mae": "MAE",
    "rmse": "RMSE",
    "normalized_mae": "normalized MAE",
    "bias": "bias",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "clip": "CLIP score",
    "clip_gap": "CLIP, right - wrong text",
}
COLUMNS = (
    *("index", "key", "status", "method", "prompt", "negative", "label", "count", "found", "others", "exact"),
    *("clip", "clip_mismatched", "seed", "width", "height", "steps", "guidance", "denoiser", "file", "stage", "error"),
)

SEARCHED = ("final_seed", "counted", "trials", "stopped", "spent")  # where there are searches among the methods


def write_report(folder: str | Path, rows: Sequence[MergedRow], protocol: str | Path | None = None) -> str:
    """Write report.html, report.csv, report.json and report.md; returns the last one's text.

    protocol: a protocol.json; without it the one that the folder has, or the usual one. Raises InputError, and
    UnsupportedModelError without jinja2.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    rule, source = settle_protocol(folder, manifest, protocol)
    summary = summarize(rows, rule)
    runs = len(test_runs(source)) if source else None
    text = to_markdown(summary, manifest, runs)
    write_text(folder / "report.csv", to_csv(rows))
    write_text(folder / "report.json", json.dumps(to_dict(summary, manifest), indent=1) + "\n")
    write_text(folder / "report.md", text)
    write_text(folder / "report.html", to_html(folder, rows, summary, manifest, runs))
    return text


def settle_protocol(folder: Path, manifest: Manifest, protocol: str | Path | None) -> tuple[Protocol, Path | None]:
    """The protocol to report by, which the folder keeps a copy of, and the file it came from."""
    copy = folder / "protocol.json"
    if protocol is None and copy.exists():
        values = read_values(copy)
        source = values.get("_source")
        if not isinstance(source, str | None):
            raise InputError(f"{copy} is broken: its _source is not a path; remove it")
        return parse_protocol(values), Path(source) if source else None
    split = str(manifest.about.get("split", "dev"))
    rule = read_protocol(protocol) if protocol else parse_protocol({"split": split})
    if rule.split != split:
        raise InputError(f"{protocol} is for the split {rule.split}, and {folder} was made of {split}")
    source = Path(protocol).resolve() if protocol else None
    write_text(copy, json.dumps({**asdict(rule), **({"_source": str(source)} if source else {})}, indent=1) + "\n")
    return rule, source


def to_csv(rows: Sequence[MergedRow]) -> str:
    """One line per item."""
    text = io.StringIO()
    columns = (*COLUMNS, *(name for name in SEARCHED if any(name in row for row in rows)))
    writer = csv.DictWriter(text, columns, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_dict(summary: Summary, manifest: Manifest) -> dict[str, Any]:
    """All figures and comparisons for JSON; a bound that there is not is None."""
    groups = [
        {"name": group.name, "method": group.method, "size": group.size and format_size(group.size)}
        | {status: group.number(status) for status in ("ok", "error", "missing")}
        | {"figures": {name: asdict(figure) for name, figure in group.figures.items()}}
        for group in summary.groups
    ]
    comparisons = [asdict(one) for one in summary.comparisons]
    about = {**manifest.about, "protocol": asdict(summary.protocol)}
    return _without_nan({**about, "groups": groups, "comparisons": comparisons})


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_markdown(summary: Summary, manifest: Manifest, runs: int | None) -> str:
    """Figures down, methods across; then the comparisons; then what fixes them."""
    names = [name for name in TITLES if any(name in group.figures for group in summary.groups)]
    lines = [
        "| | " + " | ".join(_heading(group) for group in summary.groups) + " |",
        "|---|" + "---|" * len(summary.groups),
    ]
    for name in names:
        title = f"**{TITLES[name]}** (primary)" if name == summary.protocol.primary else TITLES[name]
        lines.append(f"| {title} | " + " | ".join(shown(g.figures.get(name)) for g in summary.groups) + " |")
    if summary.comparisons:
        lines += ["", "| compared | figure | difference | p | |", "|---|---|---|---|---|"]
        lines += ["| " + " | ".join(comparison_cells(one)) + " |" for one in summary.comparisons]
    return "\n".join([*lines, "", *about_lines(summary, manifest, runs), ""])


def comparison_cells(one: Any) -> tuple[str, str, str, str, str]:
    """A comparison in words: who, figure, difference, p, verdict."""
    p = f"{one.p:.3g} (primary)" if one.p_holm is None else f"{one.p_holm:.3g} (Holm)"
    verdict = "" if one.equivalent is None else ("equivalent" if one.equivalent else "not shown equivalent")
    return f"{one.group} - {one.baseline}", TITLES.get(one.figure, one.figure), shown(one.difference), p, verdict


def about_lines(summary: Summary, manifest: Manifest, runs: int | None) -> list[str]:
    """What the figures rest on, in sentences."""
    rule = summary.protocol
    lines = [
        f"Benchmark {manifest.about.get('benchmark', 'unnamed')}, split {rule.split}; primary figure: "
        f"{TITLES.get(rule.primary, rule.primary)}; intervals of {rule.level:.0%} resample by {rule.unit}; "
        f"margin of equivalence {rule.margin:g}; p values are Holm-corrected, the primary figure's among its own.",
        ", ".join(
            f"{part}: {getattr(manifest, part)['name']} ({getattr(manifest, part)['fingerprint'][:8]})"
            for part in ("model", "judge", "clip")
            if getattr(manifest, part)
        )
        + ".",
        ", ".join(f"{name} {value}" for name, value in (*asdict(manifest.settings).items(), *manifest.versions.items()))
        + ".",
    ]
    if manifest.search:
        lines.append(_search_line(summary, manifest))
    if runs is not None:
        lines.append(f"By its log, this protocol's test split was run {runs} time{'' if runs == 1 else 's'}.")
    return lines


def _search_line(summary: Summary, manifest: Manifest) -> str:
    """One line on which counter steered the searches (never the judge) and what they cost."""
    by = manifest.search
    spent = {group.name: [row["spent"] for row in group.rows if "spent" in row] for group in summary.groups}
    means = [f"{name} spent {sum(values) / len(values):.1f}" for name, values in spent.items() if values]
    cost = f"on average, {', '.join(means)}" if means else "no search has finished yet"
    return (
        f"Searches were steered by {by['name']} ({by['fingerprint'][:8]}), not by the judge, with at most "
        f"{by['budget']:g} plain images' worth of compute per image; {cost}."
    )


def shown(interval: Interval | None) -> str:
    """ "0.512 [0.430, 0.593]"; the bounds are left out where there are none."""
    if interval is None:
        return "-"
    return str(interval) if math.isfinite(interval.low) else f"{interval.estimate:.3f}"


def to_html(folder: Path, rows: Sequence[MergedRow], summary: Summary, manifest: Manifest, runs: int | None) -> str:
    """The page. Raises UnsupportedModelError without jinja2."""
    try:
        from jinja2 import Environment
    except ImportError as error:
        raise UnsupportedModelError(f"the report needs jinja2: {install('metrics')}") from error
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    names = [name for name in TITLES if any(name in group.figures for group in summary.groups)]
    return template.render(
        title=str(manifest.about.get("benchmark", "Evaluation")),
        about=about_lines(summary, manifest, runs),
        groups=summary.groups,
        figures=[
            (TITLES[name], name == summary.protocol.primary, [shown(g.figures.get(name)) for g in summary.groups])
            for name in names
        ],
        comparisons=[comparison_cells(one) for one in summary.comparisons],
        plots=_plots(summary),
        cells=_cell_tables(summary.groups),
        data=json.dumps(_page_data(folder, rows)).replace("<", "\\u003c"),
    )


def _heading(group: Group) -> str:
    failed = f", {group.number('error')} failed" if group.number("error") else ""
    missing = f", {group.number('missing')} missing" if group.number("missing") else ""
    return f"{group.name} (n = {group.number('ok')}{failed}{missing})"


def _plots(summary: Summary) -> list[tuple[str, str]]:
    drawn = [("Exact counts by the count asked for", plots.line_plot(_by_count(summary.groups), "count", "exact"))]
    budgets = {
        group.name: [(round(group.budget, 1), share.estimate, share.low, share.high)]
        for group in summary.groups
        if group.budget and (share := group.figures.get("exact"))
    }
    if len({points[0][0] for points in budgets.values()}) > 1:
        chart = plots.line_plot(budgets, "denoiser passes an image", "exact")
        drawn.append(("Accuracy over budget", chart))
    for group in summary.groups:
        if done := counted(group.rows):
            table = confusion_matrix([row["count"] for row in done], [row["found"] for row in done], 12)
            drawn.append((f"Confusion: {group.name}", plots.heat_table(_trimmed(table.tolist()), "found", "asked")))
    if summary.protocol.split == "dev":  # no threshold is chosen on test
        sweep = plots.line_plot(_by_threshold(summary.groups), "least score of an object", "exact")
        drawn.append(("Exact counts by the judge's threshold", sweep))
    return [(title, svg) for title, svg in drawn if svg]


def _by_count(groups: Sequence[Group]) -> dict[str, list[plots.Point]]:
    series = {}
    for group in groups:
        table: dict[int, list[bool]] = {}
        for row in counted(group.rows):
            table.setdefault(row["count"], []).append(row["exact"])
        shares = {count: wilson(sum(right), len(right)) for count, right in sorted(table.items())}
        series[group.name] = [(float(count), one.estimate, one.low, one.high) for count, one in shares.items()]
    return {name: points for name, points in series.items() if points}


def _by_threshold(groups: Sequence[Group]) -> dict[str, list[plots.Point]]:
    """What the judge would have counted had it been stricter: rows do not hold what scored below its threshold."""
    import torch

    from t2i_tools.detectors import Detections

    nan, series = float("nan"), {}
    for group in groups:
        done = [row for row in counted(group.rows) if "objects" in row]
        found = []
        for row in done:
            labels, scores = [one["label"] for one in row["objects"]], [one["score"] for one in row["objects"]]
            boxes = torch.tensor([one["box"] for one in row["objects"]]).reshape(-1, 4)
            found.append(Detections(labels, boxes, torch.tensor(scores)))
        if done:
            least = min((float(one.scores.min()) for one in found if one.count), default=1.0)
            known = [threshold for threshold in THRESHOLDS if threshold > least - THRESHOLDS[0]]
            sweep = threshold_sweep(found, [row["count"] for row in done], [row["label"] for row in done], known)
            points = zip(sweep.thresholds.tolist(), sweep.exact.tolist(), strict=True)
            series[group.name] = [(threshold, share, nan, nan) for threshold, share in points]
    return series


def _trimmed(table: list[list[int]]) -> list[list[int]]:
    """Without the last rows and columns that are empty."""
    used = max((max(i, j) for i, row in enumerate(table) for j, value in enumerate(row) if value), default=0)
    return [row[: used + 1] for row in table[: used + 1]]


def _cell_tables(groups: Sequence[Group]) -> list[dict[str, Any]]:
    tables = []
    for group in groups:
        shares = cells(group.rows)
        labels, numbers = sorted({label for label, _ in shares}), sorted({count for _, count in shares})
        if labels:
            lines = [(label, [shares.get((label, count)) for count in numbers]) for label in labels]
            tables.append({"name": group.name, "counts": numbers, "lines": lines})
    return tables


def _page_data(folder: Path, rows: Sequence[MergedRow]) -> dict[str, Any]:
    """What the page's script shows: groups, and one entry a pair with one cell a group."""
    groups = split_groups(rows)
    pairs: dict[tuple, dict[str, Any]] = {}
    for name, part in groups.items():
        for row in part:
            entry = {"prompt": row["prompt"], "label": row.get("label"), "count": row.get("count"), "seed": row["seed"]}
            cell: dict[str, Any] = {
                n: row[n] for n in ("status", "error", "found", "others", "exact", "clip", "file") if n in row
            }
            cell["thumbnail"] = thumbnail(folder / row["file"]) if row.get("file") else None
            pairs.setdefault(pair(row), {**entry, "cells": {}})["cells"][name] = cell
    return {"groups": list(groups), "pairs": list(pairs.values())}


def thumbnail(path: Path) -> str | None:
    """The image, at most 128 pixels wide and high, as a WebP data URI; None where it cannot be read."""
    try:
        image = open_image(path)
    except InputError:
        return None
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=75)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
