"""Which padding policy is best on one's own model: images under each from the same noise, their scores, an advice."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
import torch

from t2i_tools.errors import InputError
from t2i_tools.handle import Report
from t2i_tools.images.eight_bits import to_images
from t2i_tools.metrics import ClipScorer, paired_bootstrap
from t2i_tools.models.anatomy import denoiser
from t2i_tools.models.compiled import unwrapped
from t2i_tools.models.families import find_family
from t2i_tools.padding.api import pad_policy
from t2i_tools.padding.formula import FEWEST_PROMPTS
from t2i_tools.padding.policies import TRAINED, Policy, possible_policies, refusal
from t2i_tools.padding.probe import ConditionScores, Scorer, open_clip, score_interval

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL import Image

    from t2i_tools.detectors import Counter


@dataclass
class PolicyScores(ConditionScores):
    """A policy, and what each of its images scored. seconds: that each took."""

    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Advice:
    """policy: "as trained" or the one that is better. why: in words."""

    policy: str
    why: str

    def __str__(self) -> str:
        return f"{self.policy}: {self.why}"


@dataclass(frozen=True)
class PolicyComparison:
    """What `compare_policies` found.

    Attributes:
        prompts: of each image; seeds: likewise.
        cells: one per policy, the first as trained.
        advice: which policy to take.
        trained: the policy that the pipeline follows as it comes.
        refused: policy -> why the model cannot follow it.
    """

    prompts: list[str]
    seeds: list[int]
    cells: list[PolicyScores]
    advice: Advice
    trained: str
    refused: Mapping[str, str]

    def table(self) -> Report:
        """policy, n images, prompt adherence, similarity to the image as trained, objects found, seconds per image."""
        return Report(self._row(cell) for cell in self.cells)

    def as_dict(self) -> dict[str, Any]:
        """All figures, for JSON."""
        return {
            "advice": self.advice.policy,
            "why": self.advice.why,
            "trained": self.trained,
            "refused": dict(self.refused),
            "prompts": self.prompts,
            "seeds": self.seeds,
            "cells": [
                {"policy": c.condition, "clip": c.clip, "similarity": c.similarity, "seconds": c.seconds}
                | ({"objects": c.recall} if c.recall else {})
                | {"summary": self._row(c)}
                for c in self.cells
            ],
        }

    def _row(self, cell: PolicyScores) -> dict[str, Any]:
        row: dict[str, Any] = {"policy": cell.condition, "n": len(cell.clip)}
        row["CLIP score"] = score_interval(cell.clip, self.prompts)
        row["similarity"] = score_interval(cell.similarity, self.prompts)
        if cell.recall:
            row["objects found"] = score_interval(cell.recall, self.prompts)
        return row | {"seconds": f"{float(np.median(cell.seconds)):.1f}"}


def compare_policies(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int] = (0, 1),
    *,
    clip: ClipScorer | None = None,
    counter: Counter | None = None,
    objects: Mapping[str, Mapping[str, int]] | None = None,
    pictures: int = 8,
    on_image: Callable[[int, int], None] | None = None,
    **call: object,
) -> PolicyComparison:
    """Draw the prompts under every padding policy that the model can follow, and advise one.

    Args:
        pipe: A text-to-image pipeline.
        prompts: 16 or so; they are resampled for the bounds.
        seeds: Of the images per prompt; (0, 1) by default.
        clip: Scores the images; OpenAI's from the Hub, on the CPU, when None.
        counter: A detector that finds `objects`: the advice then rests on the objects found, without it on the CLIP
            score against the prompt.
        objects: prompt -> {label: how many}; goes with `counter`.
        pictures: Prompts whose images are kept; 8 by default.
        on_image: Called with (images made, images in all).
        call: Further arguments of the pipeline's call, such as guidance_scale.

    Returns:
        The comparison: `table()` with 95 % intervals, and the advice that `pad_policy(pipe, "auto", measured=...)`
        follows.

    Raises:
        InputError: There is nothing to compare, or a counter without objects.
        UnsupportedModelError: It is not known how to mask the text of this denoiser.
        ModelError: The CLIP cannot be opened.

    Example:
        >>> found = t2i.compare_policies(pipe, ["two cats", "a dog"], (0,), clip=t2i.load_bundled_clip())
        >>> found.advice.policy
        'as trained'
    """
    prompts = list(dict.fromkeys(prompts))
    if not prompts or not seeds:
        raise InputError("there is nothing to compare: give a prompt and a seed")
    if (counter is None) != (objects is None):
        raise InputError("counter and objects go together: which detector, and what each prompt asks for")
    family = find_family(unwrapped(denoiser(pipe)))
    pad_policy(pipe, "none").remove()  # whether it can at all
    assert family.masking is not None
    scorer = Scorer(clip or open_clip(), counter, objects)
    cells = [PolicyScores("policy", name) for name in (TRAINED, *possible_policies(family))]
    work = [(prompt, seed) for prompt in prompts for seed in seeds]
    for done, (prompt, seed) in enumerate(work):
        images = [_draw(pipe, cell, prompt, seed, call) for cell in cells]
        scorer.score(prompt, cells, images, keep_pictures=done < pictures * len(seeds))
        if on_image is not None:
            on_image((done + 1) * len(images), len(work) * len(images))
    drawn = [prompt for prompt, _ in work]
    metric = "recall" if counter is not None and len(cells[0].recall) == len(drawn) else "clip"
    scores = {cell.condition: np.array(getattr(cell, metric)) for cell in cells}
    guard = {cell.condition: np.array(cell.clip) for cell in cells} if metric == "recall" else None
    advice = recommend(scores, drawn, "objects found" if metric == "recall" else "CLIP score", guard)
    refused = {one: why for one in get_args(Policy) if (why := refusal(family, one))}
    return PolicyComparison(drawn, [seed for _, seed in work], cells, advice, family.masking.trained, refused)


def recommend(
    scores: Mapping[str, np.ndarray],
    prompts: Sequence[str],
    metric: str,
    guard: Mapping[str, np.ndarray] | None = None,
) -> Advice:
    """The policy to take: as trained, unless another one scores higher with its bound above 0.

    Args:
        scores: policy -> (n,), "as trained" among them.
        prompts: (n,) names, the units that are resampled.
        metric: what was scored, in words.
        guard: CLIP scores likewise: a policy that lowers them is not advised, for an image crowded with objects has
            all that were asked for.

    Returns:
        The advice; bounds of 97.5 % over all policies together (Bonferroni), since the best of several is taken.
    """
    others = [name for name in scores if name != TRAINED]
    if not others:
        return Advice(TRAINED, "the model can follow no other policy")
    if len(set(prompts)) < FEWEST_PROMPTS:
        return Advice(TRAINED, f"{len(set(prompts))} prompts decide nothing: give {FEWEST_PROMPTS} or more")
    level = 1 - 0.05 / len(others)
    gains = {name: paired_bootstrap(scores[name], scores[TRAINED], prompts, level=level) for name in others}
    best = max(gains, key=lambda name: gains[name].estimate)
    worse = [n for n in others if guard and paired_bootstrap(guard[n], guard[TRAINED], prompts, level=level).high < 0]
    better = [name for name in others if gains[name].low > 0 and name not in worse]
    if better:
        best = max(better, key=lambda name: gains[name].estimate)
        return Advice(best, f"{metric} {gains[best].estimate:+.3f} {_bounds(gains[best])} over as trained")
    gain = f"{gains[best].estimate:+.3f} {_bounds(gains[best])}"
    lowered = ", and lowers the CLIP score" if best in worse else ""
    return Advice(TRAINED, f"no other policy is better: the best, {best}, is {gain} in {metric}{lowered}")


def _bounds(interval: Any) -> str:
    return f"[{interval.low:+.3f}, {interval.high:+.3f}]"


def _draw(pipe: Any, cell: PolicyScores, prompt: str, seed: int, call: Mapping[str, Any]) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    started = time.perf_counter()
    with nullcontext() if cell.condition == TRAINED else pad_policy(pipe, cast("Policy", cell.condition)):
        image = to_images(pipe(prompt, **call, generator=generator, output_type="np").images)[0]
    cell.seconds.append(time.perf_counter() - started)
    return image
