"""examples/evaluations/sizes/run.py from its prompts to the advice, on a few images."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.scripts import example_module

from t2i_tools.bundled import load_bundled_judge
from t2i_tools.evaluation import counts_rows, read_protocol
from t2i_tools.evaluation.studies.advice import read_evidence

EXAMPLES = Path(__file__).parents[2] / "examples" / "evaluations" / "sizes"


@pytest.fixture(scope="module")
def size_scenes():
    return example_module("evaluations/sizes/size_scenes")


@pytest.fixture(scope="module")
def size_figures():
    return example_module("evaluations/sizes/size_figures")


def prompts(size_scenes, split, number=None):
    return counts_rows(size_scenes.benchmark(split), split, size_scenes.COUNTS, number)


def test_the_splits_share_nothing(size_scenes):
    dev, test = (prompts(size_scenes, split) for split in ("dev", "test"))
    assert len(test) == 200
    for name in ("prompt", "label", "seed"):
        assert not {row[name] for row in dev} & {row[name] for row in test}
    assert read_protocol(EXAMPLES / "protocol.json").split == "test"


@pytest.mark.parametrize("size", [(64, 64), (96, 96), (64, 128), (320, 192)])
@pytest.mark.parametrize("objects", ["fixed", "scaled"])
def test_references_show_what_is_asked_for(size_scenes, size, objects):
    """By the judge, where objects are as large as those it was trained on."""
    asked = prompts(size_scenes, "dev", 12)
    pictures = size_scenes.references(asked, size, "dev", objects)
    assert {(picture.height, picture.width) for picture in pictures} == {size}
    rows = size_scenes.judged(load_bundled_judge(), pictures, asked, "scenes")
    if objects == "fixed" and min(size) > 64:
        assert all(len(row["objects"]) == row["count"] for row in rows)
        assert all({one["label"] for one in row["objects"]} == {row["label"]} for row in rows)


def test_small_pictures_are_seen_enlarged(size_scenes):
    """The boxes stay in the picture's own pixels; larger pictures are seen as they are."""
    asked = prompts(size_scenes, "dev", 12)
    judge = size_scenes.draft_judge()
    judge.threshold = size_scenes.THRESHOLD
    small, large = (size_scenes.references(asked, size, "dev", "fixed") for size in ((64, 64), (128, 128)))
    found = judge.detect(small)
    assert sum(one.count == row["count"] for one, row in zip(found, asked, strict=True)) >= 10
    assert all((one.boxes <= 64).all() for one in found)
    for ours, plain in zip(judge.detect(large), load_bundled_judge().detect(large), strict=True):
        assert torch.equal(ours.boxes, plain.boxes)


def test_crops_are_squares_of_the_native_side_at_most(size_scenes, size_figures):
    (row,) = prompts(size_scenes, "dev", 1)
    for size, side in (((64, 96), 64), ((192, 320), 128)):
        (picture,) = size_scenes.references([row], size, "dev", "fixed")
        crop = size_figures.Features.crop(picture, np.random.default_rng(0))
        assert crop.size == (side, side)


@pytest.mark.slow
def test_the_whole_script(tmp_path):
    arguments = ("--number", "6", "--sizes", "64x64,128x128", "--methods", "plain,entropy_scaling", "--steps", "2")
    command = [sys.executable, EXAMPLES / "run.py", tmp_path / "out", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "entropy_scaling - plain, exact, all sizes but the native" in (tmp_path / "out" / "sizes.md").read_text()
    evidence = read_evidence(tmp_path / "out" / "evidence.json")
    assert [(point.size, point.method) for point in evidence.points] == [
        ((128, 128), "plain"),
        ((64, 64), "plain"),
        ((64, 64), "entropy_scaling"),
    ]
