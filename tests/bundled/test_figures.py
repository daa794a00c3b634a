"""The model card's figures, measured again on the test split; minutes, hence slow."""

import pytest
from support.scripts import example_module

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def evaluate():
    return example_module("training/bundled/evaluate")


def test_vae(evaluate):
    figures = evaluate.measure_vae()
    assert figures["psnr"]["value"] >= 26
    exact = {name: figure["value"] for name, figure in figures["exact"].items()}
    assert abs(exact["originals"] - exact["reconstructions"]) <= 0.03


def test_clip(evaluate):
    assert all(figure["value"] >= 0.6 for figure in evaluate.measure_clip().values())


def test_detectors(evaluate):
    for figures in evaluate.measure_detectors().values():
        assert figures["exact"]["value"] >= 0.97
        assert figures["classes"]["value"] >= 0.99


def test_counts(evaluate):
    figures = evaluate.measure_counts()
    assert figures["class"]["value"] >= 0.95
    assert figures["exact 1-3"]["value"] >= 0.85
    assert figures["colour"]["value"] >= 0.95


def test_layouts(evaluate):
    assert evaluate.measure_layouts()["recall"]["value"] >= 0.6


def test_speed(evaluate):
    figures = evaluate.measure_speed()
    assert figures["sampling"]["value"] <= 2
    assert figures["shell"]["value"] <= 12
