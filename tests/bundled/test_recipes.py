"""The trainings of the bundled model go on where a kill left them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from support.scripts import example_module
from torch import nn

from t2i_tools.detectors.heatmap import HeatmapCounter

RECIPES = Path(__file__).parents[2] / "examples" / "training" / "bundled"


@pytest.fixture(scope="module")
def common():
    return example_module("training/bundled/common")


class Training:
    """A small network with momenta and running statistics, whose batches depend on the step alone."""

    def __init__(self, common, path):
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 1))
        self.optimizer = torch.optim.AdamW(self.net.parameters(), 1e-2)
        self.checkpoint = common.Checkpoint(path, {"net": self.net}, self.optimizer)

    def run(self, first, last):
        for step in range(first, last):
            batch = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(step))
            self.net(batch).square().mean().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.checkpoint.save(last, loss=1.0)
        return self.net.state_dict()


def test_a_checkpoint_goes_on_as_if_nothing_had_happened(common, tmp_path):
    whole = Training(common, tmp_path / "whole.safetensors").run(0, 6)
    path = tmp_path / "stopped.safetensors"
    assert Training(common, path).checkpoint.load() == 0
    Training(common, path).run(0, 4)
    path.with_suffix(".part").write_bytes(b"torn by a kill in the middle of writing")
    again = Training(common, path)
    assert again.checkpoint.load() == 4
    ended = again.run(4, 6)
    assert all(torch.equal(ended[name], value) for name, value in whole.items())
    assert [json.loads(line)["step"] for line in path.with_suffix(".jsonl").read_text().splitlines()] == [4, 6]


def test_the_learning_rate_rises_and_falls(common):
    rates = [common.learning_rate(step, 1000, 2.0) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02)
    assert max(rates) == rates[100] == 2.0
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert common.learning_rate(5000, 1000, 2.0) == pytest.approx(0.04)


@pytest.mark.slow
def test_a_killed_recipe_goes_on_to_its_weights(tmp_path):
    places = ["--work", tmp_path / "work", "--output", tmp_path / "weights"]
    short = ["--steps", 200, "--scenes", 64, "--batch", 2]
    command = [sys.executable, RECIPES / "judge.py", *map(str, [*places, *short])]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=alone) as one:
        assert one.stdout.readline().startswith("100 ")
        one.send_signal(signal.SIGKILL)
    with safe_open(tmp_path / "work" / "judge.safetensors", "pt") as file:
        assert file.metadata()["step"] == "100"
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=alone)
    assert ended.stdout.startswith("200 ")
    assert len(HeatmapCounter.load(tmp_path / "weights" / "judge" / "model.safetensors").labels) == 12
