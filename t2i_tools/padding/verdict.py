"""What the filling of a prompt is used for, from scores S of images under each condition:

    U = (S_pads - S_clean) / (S_full - S_clean)          how much of the prompt's effect the pads alone have
    N = (S_full - S_prompt) / (S_full - S_clean)         how much of it is lost when they are taken away

with bounds of 97.5 % by resampling prompts. The scenarios are those of Toker et al. 2025; U and the rule are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from t2i_tools.metrics import Interval, cluster_bootstrap, paired_bootstrap

THRESHOLD = 0.10
FEWEST_PROMPTS = 8  # of fewer, resampling does not give bounds to trust
MEANINGS = {
    "text-encoding": "the text encoder writes about the prompt into its padding, and the denoiser reads it there",
    "diffusion": "the padding comes empty from the encoder, and the denoiser uses it while it works",
    "ignored": "the padding does nothing that the prompt's own tokens do not do",
    "masked": "an attention mask hides the padding: it cannot do anything",
    "undecided": "the data do not decide",
}
Scores = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Verdict:
    """word: a key of MEANINGS. why: in words. use, need: U and N by route ("encoder", "diffusion"), where known."""

    word: str
    why: str
    use: Mapping[str, Interval] = field(default_factory=dict)
    need: Mapping[str, Interval] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.word}: {MEANINGS[self.word]}" + (f" ({self.why})" if self.why else "")


def effect_share(part: Any, full: Any, clean: Any, prompts: Sequence[Any], *, seed: int = 0) -> Interval:
    """mean(part) / mean(full - clean) over (n,) items, with a 95 % interval by resampling prompts (97.5 % bounds).

    part: S_pads - S_clean for U, S_full - S_prompt for N. Raises InputError for fewer than two prompts.
    """
    columns = np.stack([np.asarray(part), np.asarray(full) - np.asarray(clean)], axis=1)
    return cluster_bootstrap(columns, prompts, statistic=lambda m: m[..., 0] / m[..., 1], seed=seed)


def decide(
    encoder: Scores,
    diffusion: Scores,
    prompts: Sequence[Any],
    *,
    masked: bool = False,
    threshold: float = THRESHOLD,
) -> Verdict:
    """The verdict. encoder, diffusion: (n,) scores by condition: "full", "clean", "pads", "prompt", "swapped".

    On a cross-attention denoiser both are the same. prompts: (n,) names, the units that are resampled.
    """
    if len(set(prompts)) < FEWEST_PROMPTS:
        least = f"it takes {FEWEST_PROMPTS} prompts or more to tell how much prompts differ"
        return Verdict("undecided", f"{least}, not {len(set(prompts))}: give more")
    routes = {"encoder": encoder, "diffusion": diffusion}
    effects = {name: paired_bootstrap(s["full"], s["clean"], prompts) for name, s in routes.items()}
    if any(effect.low <= 0 for effect in effects.values()):
        word = "masked" if masked else "undecided"
        return Verdict(word, "images with the prompt score no better than without it: there is no effect to share out")
    use = {n: effect_share(s["pads"] - s["clean"], s["full"], s["clean"], prompts) for n, s in routes.items()}
    need = {n: effect_share(s["full"] - s["prompt"], s["full"], s["clean"], prompts) for n, s in routes.items()}
    if masked:
        return Verdict("masked", "", use, need)
    word, why = _rule(use, {name: _beats_swapped(s, prompts) for name, s in routes.items()}, threshold)
    return Verdict(word, why, use, need)


def _rule(use: Mapping[str, Interval], own: Mapping[str, bool], threshold: float) -> tuple[str, str]:
    encoder, diffusion = use["encoder"], use["diffusion"]
    if encoder.low > threshold:
        return ("text-encoding", "") if own["encoder"] else ("undecided", "another prompt's pads do as well")
    if encoder.high < threshold and diffusion.low > threshold:
        return ("diffusion", "") if own["diffusion"] else ("undecided", "another prompt's pads do as well")
    if encoder.high < threshold and diffusion.high < threshold:
        return "ignored", ""
    wide = encoder if encoder.high >= threshold else diffusion
    return "undecided", f"U = {wide} has {threshold:g} inside: more prompts would tell"


def _beats_swapped(scores: Scores, prompts: Sequence[Any]) -> bool:
    """Whether the prompt's own pads score above another prompt's; without that control they are not known to."""
    return "swapped" in scores and paired_bootstrap(scores["pads"], scores["swapped"], prompts).low > 0
