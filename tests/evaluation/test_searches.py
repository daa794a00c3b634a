"""Searches compared: figures computed by hand, and one search on the tiny pipeline."""

import pytest
import torch

from t2i_tools.detectors.heatmap import HeatmapCounter, HeatmapNet
from t2i_tools.evaluation.searches import Cell, accuracy_curve, judged_at, run_cell, summarise


def row(method, key, count, judged, curve=(), counted=None):
    compute = {"seconds": 2.0}
    label, _, seed = key.split("-")
    own = {"key": key, "method": method, "label": label, "count": count, "seed": int(seed), "judged": judged}
    return {**own, "counted": judged if counted is None else counted, "curve": list(curve), "pictures": 4.0,
            "compute": compute, "clip": 30.0}  # fmt: skip


def test_the_best_picture_there_is_at_each_budget():
    one = row("token", "cat-3-0", 3, 3, [(1.4, 5), (2.8, 4), (7.0, 3)])
    assert [judged_at(one, budget) for budget in (1, 1.4, 2, 4, 7, 99)] == [None, 5, 5, 4, 3, 3]
    other = row("token", "cat-3-1", 3, 2, [(1.4, 2)])
    assert accuracy_curve([one, other], (1, 4, 8)) == {"token": [0.0, 0.0, 0.5]}


def test_a_method_is_compared_with_the_baseline_pair_by_pair():
    keys = [f"cat-{n}-{seed}" for n in (2, 3, 4, 5) for seed in (0, 1)]
    plain = [row("plain", key, n := int(key[4]), n + 1) for key in keys]
    token = [row("token", key, n := int(key[4]), n if key != keys[0] else n + 2, counted=n) for key in keys]
    before, after = summarise(plain + token)
    assert (before["exact"], before["mae"], before["bias"]) == (0, 1, 1)
    assert (after["exact"], after["mae"], after["n"]) == (7 / 8, 2 / 8, 8)
    assert after["low"] < 7 / 8 < after["high"]
    assert after["exact_by_counter"] == 1
    assert after["exact_p"] == pytest.approx(2 * 0.5**7)  # seven pairs, all one way
    assert 0 < after["error_p"] <= 1
    assert "exact_p" not in before


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
    assert found["pictures"] == 3
    for name, judge in judges.items():
        (seen,) = judge.detect(images, "cat")
        assert found["judges"][name] == seen.count
    assert found["judged"] == found["judges"]["judge"] == found["curve"][-1][1]
