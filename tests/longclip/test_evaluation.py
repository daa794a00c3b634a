"""The evaluation script from end to end, on few scenes and steps."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.scripts import example_module

import t2i_tools as t2i
from t2i_tools.bundled import LONG_CLIP

EXAMPLES = Path(__file__).parents[2] / "examples" / "evaluations" / "long_prompts"


@pytest.fixture(scope="module")
def scenes():
    return example_module("evaluations/long_prompts/long_scenes")


def test_what_is_drawn_is_seen_at_its_place(scenes):
    for drawn in scenes.full_scenes("dev", 12):
        seen = scenes.seen_places(list(drawn.labels), drawn.boxes, wide=True)
        assert seen == set(zip(drawn.labels, drawn.places, strict=True))
    corner = np.array([[0, 0, 30, 30]])
    assert scenes.seen_places(["cat"], corner, wide=True) == {("cat", "at the top far left")}
    assert scenes.seen_places(["cat"], corner, wide=False) == {("cat", "at the top left")}


def test_the_tail_is_what_the_pipeline_does_not_read(scenes):
    pipe = t2i.load_bundled()
    sides = []
    for drawn in scenes.full_scenes("dev", 12):
        order = list(range(len(drawn.labels)))
        prompt = scenes.prompt_of(drawn, order)
        (cut,) = t2i.token_ruler(pipe, prompt, "truncate")
        places = scenes.places_of(drawn, order, cut)
        head = prompt[: len(prompt) - len(cut.cut)]  # what is read, as written
        for place in places:
            before = scenes.prompt_of(drawn, order[: place.order + 1])
            assert place.tail == (len(before) > len(head))
        sides.append(sum(place.tail for place in places))
    assert set(sides) <= {0, 1, 2, 3} and max(sides) >= 2


@pytest.mark.slow
def test_both_parts_run(tmp_path):
    def run(*arguments):
        command = [sys.executable, EXAMPLES / "run.py", *arguments]
        subprocess.run(list(map(str, command)), check=True, capture_output=True)

    run("retrieval", tmp_path, "--number", 30, "--tuned", f"tuned={LONG_CLIP}")
    found = json.loads((tmp_path / "retrieval-dev.json").read_text())
    assert found["tokens"] > 120
    assert found["clips"]["truncated"]["long I2T"]["difference"] == [0, 0, 0]
    assert found["clips"]["tuned"]["long I2T"]["difference"][0] > 0.2
    for _ in range(2):  # the second run makes nothing anew
        run("images", tmp_path, "--number", 2, "--steps", 2)
        lines = (tmp_path / "images-dev.jsonl").read_text().splitlines()
        assert len(lines) == 2 * 2 * 3
    told = json.loads((tmp_path / "images-dev.json").read_text())
    assert set(told["methods"]) == {"truncate", "chunk", "stretch"}
    assert set(told["holm"]) == {f"{name}, {side}" for name in ("chunk", "stretch") for side in ("head", "tail")}
