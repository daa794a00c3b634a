"""A check of mediation: every layer's normalized entropy held, in each step, at what it is at the native size.

    python examples/evaluations/sizes/held_entropy.py 32

measures the targets, means over so many dev prompts at 128x128, and writes held_targets.json. `held` then finds in each
call and layer the gain g with which the mean of H(softmax(g q k^T / sqrt(d))) / ln N is the target of that layer and
step; H falls with g, so bisection finds it.
"""

import json
import math
import sys
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from size_scenes import COUNTS, benchmark

import t2i_tools as t2i
from t2i_tools.bundled import BUNDLED_GUIDANCE
from t2i_tools.entropy.hooks import find_layers
from t2i_tools.entropy.meter import row_entropy
from t2i_tools.evaluation import counts_rows
from t2i_tools.evaluation.runs.generators import plain
from t2i_tools.models.anatomy import denoiser
from t2i_tools.models.calls import spread

TARGETS = Path(__file__).with_name("held_targets.json")
STEPS, QUERIES, WIDEST, HALVINGS = 10, 32, math.log(64), 14


class HeldLayer:
    """Hooks of one attention: its queries are seen, and its keys multiplied by the gain that gives the entropy."""

    def __init__(self, attention: torch.nn.Module, targets: list[float]) -> None:
        self.attention, self.targets, self.calls = attention, targets, 0
        self.query: torch.Tensor | None = None
        self.misses: list[float] = []

    def see(self, module, args, query):
        """Forward hook of to_q."""
        self.query = query

    def scale(self, module, args, key):
        """Forward hook of to_k."""
        target = self.targets[self.calls % len(self.targets)]
        self.calls += 1
        q, k = (self._heads(x) for x in (self.query, key))
        logits = q[..., spread(q.shape[-2], min(QUERIES, q.shape[-2]), 0), :] @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        gain, miss = find_gain(logits, target)
        self.misses.append(miss)
        return key * gain

    def _heads(self, x):
        return x.unflatten(-1, (self.attention.heads, -1)).transpose(1, 2)


def find_gain(logits: torch.Tensor, target: float) -> tuple[float, float]:
    """The gain on logits (..., N) whose normalized entropy is the target, and by how much it is missed."""
    low, high, size = -WIDEST, WIDEST, math.log(max(logits.shape[-1], 2))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        value = float(row_entropy((logits * math.exp(middle)).softmax(-1)).mean()) / size
        low, high = (middle, high) if value > target else (low, middle)
    return math.exp(middle), value - target


def held(pipe, items):
    """As `plain`, with the entropy of every image self-attention held at its target."""
    targets, layers = json.loads(TARGETS.read_text()), find_layers(denoiser(pipe))
    with ExitStack() as stack:
        for layer in layers:
            one = HeldLayer(layer.attention, targets[layer.name])
            stack.callback(layer.attention.to_q.register_forward_hook(one.see).remove)
            stack.callback(layer.attention.to_k.register_forward_hook(one.scale).remove)
        return plain(pipe, items)


def measure(number: int) -> dict[str, list[float]]:
    """layer -> mean normalized entropy in each step, at the native size."""
    pipe, found = t2i.load_bundled(), defaultdict(lambda: defaultdict(list))
    pipe.set_progress_bar_config(disable=True)
    for row in counts_rows(benchmark("dev"), "dev", COUNTS, number):
        noise = torch.Generator().manual_seed(row["seed"])
        with t2i.attention_entropy(pipe) as meter:
            pipe(row["prompt"], num_inference_steps=STEPS, guidance_scale=BUNDLED_GUIDANCE, generator=noise)
            for one in meter.report():
                found[one["layer"]][one["step"]].append(one["normalised"])
    return {name: [round(float(np.mean(steps[s])), 5) for s in range(STEPS)] for name, steps in found.items()}


if __name__ == "__main__":
    TARGETS.write_text(json.dumps(measure(int(sys.argv[1])), indent=1) + "\n")
