"""The report against figures that are known."""

import json
import re
from html import escape

import numpy as np
import pytest

from t2i_tools.errors import InputError
from t2i_tools.evaluation.reports.plots import heat_table, line_plot
from t2i_tools.evaluation.reports.protocol import Protocol, parse_protocol, read_protocol
from t2i_tools.evaluation.reports.report import COLUMNS, TITLES, to_csv, write_report
from t2i_tools.evaluation.reports.summary import cells, summarize
from t2i_tools.evaluation.runs.items import make_items
from t2i_tools.evaluation.runs.manifest import Manifest, Settings, settle
from t2i_tools.metrics import count_metrics, holm, mcnemar, wilson

LABELS = ("apple", "cat", "dog", "fish")


def judged(number, method="plain", right=0.5, denoiser=40, seed=0):
    """Rows of a judge that finds the right count in a share of cases, else one more."""
    rng, rows = np.random.default_rng(seed), []
    for index in range(number):
        count = 1 + index // 4 % 7
        found = count + int(rng.random() >= right)
        row = {"index": index, "key": f"{method}{index}", "prompt": f"{count} {LABELS[index % 4]}s <{index}>"}
        row |= {"label": LABELS[index % 4], "count": count, "seed": index, "method": method, "status": "ok"}
        rows.append({**row, "found": found, "others": 0, "exact": found == count, "denoiser": denoiser, "clip": 20.0})
    return rows


@pytest.fixture
def folder(tmp_path):
    manifest = Manifest(make_items([{"prompt": "a cat"}]), Settings(), about={"benchmark": "made up", "split": "dev"})
    settle(tmp_path / "out", manifest)
    return tmp_path / "out"


def test_figures_are_those_of_the_metrics():
    rows = judged(200)
    (group,) = summarize(rows, Protocol()).groups
    known = count_metrics([row["count"] for row in rows], [row["found"] for row in rows], [0] * 200)
    assert {name: figure.estimate for name, figure in group.figures.items() if name != "clip"} == pytest.approx(known)
    assert group.figures["exact"] == wilson(sum(row["exact"] for row in rows), 200)
    assert all(figure.low <= figure.estimate <= figure.high for figure in group.figures.values())
    assert group.budget == 40
    first = [row["exact"] for row in rows if (row["label"], row["count"]) == ("apple", 1)]
    assert cells(rows)["apple", 1] == wilson(sum(first), len(first))


@pytest.mark.slow
def test_methods_are_compared_in_pairs_and_all_but_the_primary_corrected():
    plain, best = judged(60, right=0.3), judged(60, "best", right=0.95, seed=1)
    summary = summarize([*plain, *best], Protocol(primary="exact"))
    found = {one.figure: one for one in summary.comparisons}
    assert {(one.group, one.baseline) for one in summary.comparisons} == {("best", "plain")}
    assert found["exact"].p == mcnemar([row["exact"] for row in best], [row["exact"] for row in plain]).p
    assert found["exact"].p_holm is None
    assert found["exact"].equivalent is False
    others = {name: one.p for name, one in found.items() if name != "exact"}
    assert {name: found[name].p_holm for name in others} == pytest.approx(holm(others))
    assert found["exact"].difference.low > 0.2
    reverse = summarize([*plain, *best], Protocol(baseline="best")).comparisons
    assert {(one.group, one.baseline) for one in reverse} == {("plain", "best")}


@pytest.mark.slow
def test_methods_are_compared_at_the_same_size_and_sizes_with_the_first():
    sizes, methods = ([16, 16], [32, 16]), ("plain", "best")
    rows = [{**row, "size": size} for method in methods for size in sizes for row in judged(8, method, right=0.9)]
    rows = [{**row, "found": row["count"] + 1, "exact": False} if "32" in str(row["size"]) else row for row in rows]
    pairs = {(one.group, one.baseline) for one in summarize(rows, Protocol()).comparisons}
    same_size = {("best 16x16", "plain 16x16"), ("best 16x32", "plain 16x32")}
    assert pairs == {*same_size, ("plain 16x32", "plain 16x16")}
    tests = [one for one in summarize(rows, Protocol()).comparisons if one.figure == "exact"]
    assert {one.group: one.p_holm for one in tests} == pytest.approx(holm({one.group: one.p for one in tests}))
    with pytest.raises(InputError, match="'bets' is not among the methods plain, best"):
        summarize(rows, Protocol(baseline="bets"))


def test_equal_methods_are_equivalent():
    rows = judged(100)
    summary = summarize([*rows, *({**row, "method": "same"} for row in rows)], Protocol())
    assert next(one for one in summary.comparisons if one.figure == "exact").equivalent is True


def test_the_unit_widens_what_is_shared():
    rows = [{**row, "exact": row["label"] in LABELS[:2], "others": 0} for row in judged(80)]
    rows = [{**row, "found": row["count"] + (not row["exact"])} for row in rows]
    by = {unit: summarize(rows, Protocol(unit=unit)).groups[0].figures["exact"] for unit in ("item", "class", "cell")}
    width = {unit: figure.high - figure.low for unit, figure in by.items()}
    assert width["class"] > width["cell"] > width["item"]
    assert by["class"].n == 4


def test_errors_and_unlabelled_rows_stay_out_of_the_figures(folder):
    rows = judged(8)
    rows[0] = {**rows[0], "status": "error", "error": "RuntimeError: <b>no</b>", "prompt": "\ud800"}
    rows[1] = {name: value for name, value in rows[1].items() if name not in ("label", "count", "found", "exact")}
    (group,) = summarize(rows, Protocol()).groups
    assert group.figures["exact"].n == 6
    assert write_report(folder, rows)
    page = (folder / "report.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert len(data["pairs"]) == 8
    assert data["pairs"][0]["cells"]["plain"]["error"] == "RuntimeError: <b>no</b>"
    assert "<b>no</b>" not in page
    assert "8 missing" not in page
    assert write_report(folder, [{**row, "status": "missing"} for row in rows])  # nothing is done yet


def test_files_of_the_report(folder):
    rows = [*judged(40), *judged(40, "best", denoiser=400, right=0.9)]
    objects = [{"label": "apple", "score": 0.6, "box": [0, 0, 8, 8]}] * 2
    rows = [{**row, "objects": objects if row["label"] == "apple" else []} for row in rows]
    text = write_report(folder, rows)
    assert (folder / "report.md").read_text() == text
    assert "| **exact** (primary) |" in text
    assert (folder / "report.csv").read_text() == to_csv(rows)
    assert to_csv(rows).splitlines()[0] == ",".join(COLUMNS)
    page = (folder / "report.html").read_text()
    (group,) = summarize(rows[:40], Protocol()).groups
    assert all(escape(TITLES[name]) in page for name in group.figures)
    assert not any(escape(title) in page for name, title in TITLES.items() if name not in group.figures)
    assert page.count("<svg") == 5  # by count, over budget, two confusions, by threshold
    assert "plain: 0.050 at 0.6<" in page  # 2 of 40 prompts ask for two apples
    assert "plain: 0.000 at 0.7<" in page
    assert "at 0.5<" not in page  # the judge told of nothing that scored less than 0.6
    assert "Accuracy over budget" in page
    assert json.loads((folder / "protocol.json").read_text())["primary"] == "exact"


def test_protocols(tmp_path, folder):
    with pytest.raises(InputError, match="knows no 'metric'"):
        parse_protocol({"metric": "exact"})
    for values, says in (({"unit": "image"}, "unknown unit"), ({"margin": 0}, "margin"), ({"level": 1}, "level")):
        with pytest.raises(InputError, match=says):
            parse_protocol(values)
    (tmp_path / "p.json").write_text("[]")
    with pytest.raises(InputError, match="not a JSON object"):
        read_protocol(tmp_path / "p.json")
    (tmp_path / "p.json").write_text('{"split": "test"}')
    with pytest.raises(InputError, match="split test"):
        write_report(folder, judged(4), tmp_path / "p.json")


def test_plots_are_svg():
    from xml.etree.ElementTree import fromstring

    series = {"a <b>": [(1.0, 0.5, 0.4, 0.6), (2.0, 0.7, float("nan"), float("nan"))], "c": [(3.0, 0.1, 0.0, 0.3)]}
    for svg in (line_plot(series, "x & y", "z"), line_plot({"a": [(1.0, 1.0, 1.0, 1.0)]}, "x", "y")):
        assert fromstring(svg).tag.endswith("svg")
    assert fromstring(heat_table([[1, 0], [2, 3]], "found", "asked")).tag.endswith("svg")
    assert line_plot({}, "x", "y") == ""
