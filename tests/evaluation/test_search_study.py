"""Searches compared: figures computed by hand, and one search on the tiny pipeline."""

import json
from statistics import mean

import numpy as np
import pytest
import torch

from t2i_tools.detectors.heatmap import HeatmapCounter, HeatmapNet
from t2i_tools.evaluation.reports.protocol import Protocol
from t2i_tools.evaluation.studies.search_report import COSTS, race, report, write_tables
from t2i_tools.evaluation.studies.search_study import Cell, judged_at, run_cell

RULE = Protocol(unit="cell", baseline="plain")
COMPUTE = {"denoiser": 40, "backward": 8, "recomputed": 0, "vae": 2, "detector": 2, "seconds": 3.0}


def row(method, key, count, judged, counted=None, curve=(), clip=30.0, area=100.0):
    label, _, seed = key.split("-")
    own = {"key": key, "method": method, "label": label, "count": count, "seed": int(seed), "judged": judged}
    own |= {"judges": {"judge": judged, "second judge": count}, "counted": judged if counted is None else counted}
    return own | {"curve": list(curve), "images": 4.0, "compute": COMPUTE, "clip": clip, "clip_mismatched": 20.0,
                  "area": area}  # fmt: skip


@pytest.fixture(scope="module")
def rows():
    """Eight cells of two seeds. Plain is one too many but right for 2; the token is right but in one of them."""
    keys = [f"cat-{n}-{seed}" for n in range(2, 10) for seed in (0, 1)]
    plain = [row("plain", key, n := int(key[4]), n + (n > 2), area=10.0 * n) for key in keys]
    token = [
        row("token", key, n := int(key[4]), n if key != "cat-5-0" else n + 3, counted=n, clip=29.0, area=1.0,
            curve=[(1.0, n + 1), (4.0, n)])
        for key in keys
    ]  # fmt: skip
    return plain + token


@pytest.fixture(scope="module")
def tables(rows):
    return report(rows, RULE, budgets=(0.5, 1, 8))


def test_figures_by_method_with_intervals_over_cells(tables):
    plain, token = tables["methods"]
    assert (plain["n"], plain["exact"].estimate, plain["exact"].n) == (16, 2 / 16, 8)
    assert (token["exact"].estimate, token["mae"].estimate, token["bias"].estimate) == (15 / 16, 3 / 16, 3 / 16)
    assert token["rmse"].estimate == pytest.approx((9 / 16) ** 0.5)
    assert plain["off_by_one"].estimate == 1
    assert plain["exact"].low <= 2 / 16 < plain["exact"].high
    assert token["exact, second judge"].estimate == token["exact, counter"].estimate == 1
    assert token["exact, counter"].low < 0.8  # eight cells, not sixteen pictures
    assert {name: token[name] for name in COSTS} == {name: COMPUTE[name] for name in COSTS}
    assert token["images"] == 4 and "seconds" not in token


def test_gains_over_the_baseline(tables):
    (line,) = tables["gains"]
    assert (line["method"], line["pairs"]) == ("token", 16)
    assert line["exact gained"].estimate == pytest.approx(13 / 16)
    assert line["exact gained"].low < 13 / 16 < line["exact gained"].high
    assert line["MAE, share left"].estimate == pytest.approx(3 / 14)
    assert line["transfer"].estimate == pytest.approx(13 / 14)
    assert line["CLIP lost, share of gap"].estimate == pytest.approx(0.1)
    assert line["McNemar p"] == pytest.approx(2 * 0.5**13)  # thirteen pairs, all one way
    assert line["p, exact (Holm)"] == pytest.approx(2 * 2 / 2**7, rel=0.2)  # signs of seven cells, the eighth is 0
    assert line["equivalent"] is False


def test_a_few_pairs_that_are_all_alike_prove_nothing(rows):
    same = [one | {"method": "twin"} for one in rows[:16]]
    (line,) = report(rows[:16] + same, RULE)["gains"]
    gained = line["exact gained"]
    assert gained.high == -gained.low == pytest.approx(1 - 0.025 ** (1 / 8))  # none of eight cells
    assert line["equivalent"] is False and line["McNemar p"] == 1


def test_exact_over_what_is_spent(rows, tables):
    one = row("token", "cat-3-0", 3, 3, curve=[(1.4, 5), (2.8, 4), (7.0, 3)])
    assert [judged_at(one, budget) for budget in (1, 1.4, 2, 4, 7, 99)] == [None, 5, 5, 4, 3, 3]
    line = tables["exact by budget"][1]
    assert [line[budget].estimate for budget in ("0.5", "1", "8")] == [0, 0, 1]
    assert line["0.5"].high > 0


def test_a_race_is_run_at_equal_compute_or_with_a_head_start():
    keys = [f"cat-{n}-{seed}" for n in range(2, 10) for seed in (0, 1)]
    counts = {key: int(key[4]) for key in keys}
    slow = [row("slow", key, n, n, curve=[(1.0, n + 1), (6.0, n)]) for key, n in counts.items()]
    fast = [row("fast", key, n, n, curve=[(1.0, n + 1), (2.0, n)]) for key, n in counts.items() if n > 2]
    (even,) = race(slow + fast, "slow", RULE, budgets=(1, 4, 8))
    assert (even["method"], even["pairs"]) == ("fast", 14)
    assert [even[budget].estimate for budget in ("1", "4", "8")] == [0, 1, 0]
    assert even["4"].low > 0.3 and even["1"].low < 0 < even["1"].high
    (half,) = race(slow + fast, "slow", RULE, budgets=(2, 4), head=0.5)
    assert [half[budget].estimate for budget in ("2", "4")] == [0, 1]


def test_object_sizes_are_the_baselines(tables):
    plain, token = tables["exact by object size"]
    assert (plain["small"].estimate, plain["large"].estimate) == (mean([1, 1, 0, 0, 0, 0]), 0)
    assert (token["small"].estimate, token["middle"].estimate, token["large"].estimate) == (1, 5 / 6, 1)


def test_confusion_is_asked_by_counted(tables):
    lines = {line["asked"]: line for line in tables["asked x counted, token"]}
    assert (lines[5]["5"], lines[5]["8"], lines[9]["9"]) == (1, 1, 2)
    assert sum(sum(v for name, v in line.items() if name != "asked") for line in lines.values()) == 16


def test_what_is_written_is_json_and_a_table(rows, tmp_path):
    text = write_tables(tmp_path, report(rows, RULE) | {"few": report(rows[2:3], RULE)["methods"]})
    told = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert told["methods"][1]["exact"]["estimate"] == 15 / 16
    assert told["few"][0]["mae"]["low"] is None  # one cell has no interval
    assert "| token | 16 | 0.938 [" in text == (tmp_path / "report.md").read_text()


def test_a_search_is_judged_by_who_took_no_part(tiny_pipeline):
    def counter(seed, threshold):
        torch.manual_seed(seed)
        return HeatmapCounter(HeatmapNet(2, (8, 8, 8)), ("apple", "cat"), threshold)

    judges = {"judge": counter(1, 0.0), "other": counter(2, 0.0)}
    cell = Cell("cat", 300, "a photo of {count} cats", 7)
    options = {"method": "best_of", "budget": 3, "steps": 1, "guidance": 1.0}
    images = []

    def score(image, of):
        images.append(image)
        return {"clip": float(of is cell)}

    found = run_cell(tiny_pipeline, counter(0, 0.0), judges, score, cell, "best_of", options)
    assert (found["key"], found["method"], found["steps"], found["clip"]) == ("cat-300-7", "best_of", 3, 1.0)
    assert found["images"] == found["budget"] == 3
    assert 0 <= found["kept"] <= 1 and found["similarity"] is None and found["looks"] == 0
    assert found["same_seed"] == (found["curve"][-1][0] == 1)
    for name, judge in judges.items():
        (seen,) = judge.detect(images, "cat")
        assert found["judges"][name] == seen.count
    assert found["judged"] == found["judges"]["judge"] == found["curve"][-1][1]
    (seen,) = judges["judge"].detect(images, "cat")
    width, height = (seen.boxes[:, 2:] - seen.boxes[:, :2]).numpy().T
    assert found["area"] == pytest.approx(np.mean(width * height), rel=1e-4)
