"""What the padding of a prompt does, from scores S of images under each condition:

    U = (S_pads - S_clean) / (S_full - S_clean)          carries: how much of the prompt's effect the padding alone has
    N = (S_full - S_prompt) / (S_full - S_clean)         needed: how much of it is lost without the padding

with bounds of 97.5 % by resampling prompts. The scenarios are those of Toker et al. 2025; U, N and the rule are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from t2i_tools.handle import Report
from t2i_tools.metrics import Interval, cluster_bootstrap, paired_bootstrap

# Share of the effect that counts as carried or needed, per metric that has a vote. Each halves the gap between planted
# models that carry little and much: any other image is a good deal unlike the full one, even with the right objects.
THRESHOLDS = {"similarity": 0.5, "objects": 0.3}
FEWEST_PROMPTS = 8  # of fewer, resampling does not give bounds to trust
MEANINGS = {
    "text-encoding": "the text encoder writes about the prompt into its padding, and the denoiser reads it there",
    "diffusion": "the padding comes empty from the encoder, and the denoiser writes about the prompt into it",
    "needed": "the padding says nothing of the prompt, and yet images lose without it",
    "ignored": "the padding does nothing that the prompt's own tokens do not do",
    "masked": "an attention mask hides the padding: it cannot do anything",
    "undecided": "the data do not decide",
}
ANOTHERS = "another prompt's padding does as well"
Scores: TypeAlias = Mapping[str, np.ndarray]  # condition -> (n,)
Shares: TypeAlias = dict[str, dict[str, Interval]]  # metric -> route -> interval


@dataclass(frozen=True)
class Answer:
    """One part of a verdict. word: "yes", "no" or "undecided"; why: in words."""

    word: str
    why: str = ""

    def __str__(self) -> str:
        return self.word + (f" ({self.why})" if self.why else "")


@dataclass(frozen=True)
class Verdict:
    """What the padding does.

    Attributes:
        word: a key of MEANINGS.
        carries: whether the padding alone, unlike another prompt's, brings the prompt's effect about.
        needed: whether images lose the prompt's effect without the padding.
        use: U by metric and route ("encoder", "diffusion").
        need: N, likewise.
        refused: metric -> why it has no vote.
    """

    word: str
    carries: Answer
    needed: Answer
    use: Shares = field(default_factory=dict)
    need: Shares = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.word}: {MEANINGS[self.word]}. Carries: {self.carries}. Needed: {self.needed}."

    def table(self) -> Report:
        """U and N by metric and route, beside the share that counts."""
        return Report(
            {
                "metric": metric,
                "route": route,
                "carries U": use,
                "needed N": self.need[metric][route],
                "counts from": self.refused.get(metric) or f"{THRESHOLDS[metric]:g}",
            }
            for metric, by_route in self.use.items()
            for route, use in by_route.items()
        )


def effect_share(part: Any, full: Any, clean: Any, prompts: Sequence[Any], *, seed: int = 0) -> Interval:
    """mean(part) / mean(full - clean) over (n,) items, with a 95 % interval by resampling prompts (97.5 % bounds).

    part: S_pads - S_clean for U, S_full - S_prompt for N. Raises InputError for fewer than two prompts.
    """
    columns = np.stack([np.asarray(part), np.asarray(full) - np.asarray(clean)], axis=1)
    return cluster_bootstrap(columns, prompts, statistic=lambda m: m[..., 0] / m[..., 1], seed=seed)


def decide(
    scores: Mapping[str, Mapping[str, Scores]],
    prompts: Sequence[Any],
    *,
    masked: bool = False,
    thresholds: Mapping[str, float] = THRESHOLDS,
) -> Verdict:
    """Judge what the padding does.

    Args:
        scores: metric -> route ("encoder", "diffusion"; on a cross-attention denoiser both are the same) -> condition
            ("full", "clean", "pads", "prompt", "swapped") -> (n,) scores. A metric without a threshold has no vote.
        prompts: (n,) names, the units that are resampled.
        masked: whether attention hides the padding as it is.
        thresholds: metric -> the share of the effect that counts.

    Returns:
        The verdict. A metric on which the padding alone scores above the whole prompt measures something else than the
        prompt's effect, and has no vote; metrics that disagree leave it undecided.

    Raises:
        InputError: scores that are no numbers.
    """
    if len(set(prompts)) < FEWEST_PROMPTS:
        least = f"{FEWEST_PROMPTS} prompts or more are needed to see how much they differ"
        few = Answer("undecided", f"{least}, not {len(set(prompts))}: give more")
        return Verdict("undecided", few, few)
    refused = {m: why for m, routes in scores.items() if (why := _refusal(m, routes, prompts, thresholds))}
    effective = {m: routes for m, routes in scores.items() if refused.get(m) != NO_EFFECT}
    use, need = _shares(effective, prompts, "pads", "clean"), _shares(effective, prompts, "full", "prompt")
    if masked:
        hidden = Answer("no", "it is masked")
        return Verdict("masked", hidden, hidden, use, need, refused)
    voting = {m: routes for m, routes in scores.items() if m not in refused}
    if not voting:
        unclear = Answer("undecided", "; ".join(f"{m}: {why}" for m, why in refused.items()))
        return Verdict("undecided", unclear, unclear, use, need, refused)
    carries = {
        route: agreed({m: _carries(use[m][route], s[route], prompts, thresholds[m]) for m, s in voting.items()})
        for route in ("encoder", "diffusion")
    }
    needed = [agreed({m: against(need[m][route], thresholds[m]) for m in voting}) for route in ("encoder", "diffusion")]
    return Verdict(*_rule(carries["encoder"], carries["diffusion"], _either(needed)), use, need, refused)


def against(share: Interval, threshold: float) -> Answer:
    """Whether a share of the effect is above a threshold."""
    if share.low > threshold:
        return Answer("yes")
    return Answer("no") if share.high < threshold else Answer("undecided", f"{share} has {threshold:g} inside")


def agreed(answers: Mapping[str, Answer]) -> Answer:
    """What several metrics say together: one that decides is enough, two that contradict each other are not."""
    words = {metric: answer.word for metric, answer in answers.items()}
    doubted = next((answer for answer in answers.values() if answer.why == ANOTHERS), None)
    if doubted is not None:
        return doubted
    if {"yes", "no"} <= set(words.values()):
        return Answer("undecided", "the metrics disagree: " + ", ".join(f"{m} says {w}" for m, w in words.items()))
    if decided := [metric for metric, word in words.items() if word != "undecided"]:
        silent = [metric for metric in words if metric not in decided]
        return Answer(words[decided[0]], f"{', '.join(silent)} alone would not tell" if silent else "")
    whys = "; ".join(f"{metric} {answer.why}" for metric, answer in answers.items())
    return Answer("undecided", f"{whys}: more prompts would tell")


NO_EFFECT = "images with the prompt score no better than without it: there is no effect to share out"
ABOVE = "the padding alone scores above the whole prompt: it measures something else"


def _refusal(metric: str, routes: Mapping[str, Scores], prompts: Sequence[Any], thresholds: Mapping[str, float]) -> str:
    """Why a metric has no vote; "" where it has one."""
    if any(paired_bootstrap(s["full"], s["clean"], prompts).low <= 0 for s in routes.values()):
        return NO_EFFECT
    if any(paired_bootstrap(s["pads"], s["full"], prompts).low > 0 for s in routes.values()):
        return ABOVE
    return "" if metric in thresholds else "no vote"


def _shares(scores: Mapping[str, Mapping[str, Scores]], prompts: Sequence[Any], more: str, less: str) -> Shares:
    return {
        metric: {n: effect_share(s[more] - s[less], s["full"], s["clean"], prompts) for n, s in routes.items()}
        for metric, routes in scores.items()
    }


def _carries(use: Interval, scores: Scores, prompts: Sequence[Any], threshold: float) -> Answer:
    """Above the threshold and above another prompt's padding; without that control it is not known to be."""
    answer = against(use, threshold)
    own = "swapped" in scores and paired_bootstrap(scores["pads"], scores["swapped"], prompts).low > 0
    return Answer("undecided", ANOTHERS) if answer.word == "yes" and not own else answer


def _either(answers: Iterable[Answer]) -> Answer:
    """Yes if one is, no if all are."""
    ranked = sorted(answers, key=lambda answer: ("yes", "undecided", "no").index(answer.word))
    return ranked[0]


def _rule(encoder: Answer, diffusion: Answer, needed: Answer) -> tuple[str, Answer, Answer]:
    if encoder.word == "yes":
        return "text-encoding", Answer("yes", encoder.why), needed
    if encoder.word == "undecided":
        return "undecided", encoder, needed
    if diffusion.word == "yes":
        return "diffusion", Answer("yes", diffusion.why), needed
    if diffusion.word == "undecided":
        return "undecided", diffusion, needed
    word = {"yes": "needed", "no": "ignored", "undecided": "undecided"}[needed.word]
    return word, Answer("no", diffusion.why), needed
