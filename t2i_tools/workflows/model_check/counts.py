"""The checks that need a detector: whether numbers are drawn, and what becomes of one object at twice the size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from t2i_tools.entropy import entropy_scaling
from t2i_tools.errors import T2IError
from t2i_tools.images.img2img import two_pass
from t2i_tools.images.sizes import format_size
from t2i_tools.shrink import deep_shrink
from t2i_tools.workflows.model_check.card import Check, to_image
from t2i_tools.workflows.model_check.runner import Runner

if TYPE_CHECKING:
    from t2i_tools.detectors import Counter

NUMBERS = ("one", "two", "three", "four", "five", "six")


def check_counts(runner: Runner, counter: Counter, label: str, seeds: Sequence[int]) -> Iterator[Check]:
    """Whether the number of objects follows the number word on each seed, as the detector counts."""
    name = "counts"
    plural = f"{label}s"
    prompts = [f"a photo of {word} {label if word == 'one' else plural}" for word in NUMBERS]
    found = np.array([[_count(runner, counter, label, prompt, seed) for prompt in prompts] for seed in seeds])
    figures = {"found": found.tolist(), "asked": list(range(1, len(NUMBERS) + 1)), "seeds": list(seeds)}
    if not found.any():
        message = f'the detector found no "{label}" in {found.size} images: it is blind to it, or the model draws none'
        yield Check(name, "detector", "failed", message, figures)
        return
    exact = float((found == np.arange(1, len(NUMBERS) + 1)).mean())
    ranks = [_spearman(np.arange(len(NUMBERS)), row) for row in found]
    mean = float(np.mean(ranks))
    figures |= {"spearman": ranks, "exact": exact}
    message = f"the count follows the word with a rank correlation of {mean:.2f} per seed; {exact:.0%} exact"
    yield Check(name, "number words", "ok" if mean >= 0.5 else "note", message, figures)


def check_larger(runner: Runner, counter: Counter, label: str, seeds: Sequence[int]) -> Iterator[Check]:
    """What one object becomes at twice the native size: plain, with either plugin, in two passes."""
    name = "twice the size"
    if runner.native is None:
        return
    size = (2 * runner.native[0], 2 * runner.native[1])
    requests = [replace(runner.request, prompt=f"a photo of one {label}", seed=seed, size=size) for seed in seeds]

    def plain() -> list[int]:
        return [_count(runner, counter, label, r.prompt, r.seed, size=size) for r in requests]

    def scaled() -> list[int]:
        with entropy_scaling(runner.pipe, native=runner.native):
            return plain()

    def shrunk() -> list[int]:
        with deep_shrink(runner.pipe, native=runner.native):
            return plain()

    def passes() -> list[int]:
        images = [two_pass(runner.pipe, [request], native=runner.native)[0] for request in requests]
        return [counter.detect([image], label)[0].count for image in images]

    for title, run in (
        ("plain", plain),
        ("entropy scaling", scaled),
        ("deep shrink", shrunk),
        ("two passes", passes),
    ):
        try:
            found = run()
        except T2IError as error:
            yield Check(name, title, "unsupported", str(error))
            continue
        repeated = float(np.mean(np.array(found) > 1))
        message = f"one object asked for at {format_size(size)}: {np.mean(found):.1f} found, repeated in {repeated:.0%}"
        yield Check(name, title, "ok", message, {"found": found, "repeated": repeated})


def _count(runner: Runner, counter: Counter, label: str, prompt: str, seed: int, **changes: object) -> int:
    image = to_image(runner.image(prompt, seed=seed, **changes))
    return counter.detect([image], label)[0].count


def _spearman(asked: np.ndarray, found: np.ndarray) -> float:
    """Rank correlation, ties at their mean rank; 0 where all counts are alike."""
    if len(set(found.tolist())) == 1:
        return 0.0
    return float(np.corrcoef(_ranks(asked), _ranks(found))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    smaller = (values[None, :] < values[:, None]).sum(1)
    equal = (values[None, :] == values[:, None]).sum(1)
    return smaller + (equal + 1) / 2
