"""One trial's pictures drawn, counted and, with a gradient, taken back to what is learned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from t2i_tools.counting.loss import count_loss, dynamic_scale, focus
from t2i_tools.counting.options import Goal, Options
from t2i_tools.counting.sampling import Sampler
from t2i_tools.detectors import Counter, Detections, Guide
from t2i_tools.errors import InputError


@dataclass(frozen=True)
class Trial:
    """What to draw: one picture a seed, from `latents` (B, ...) where given, with a graph if `gradient`."""

    seeds: tuple[int, ...]
    latents: torch.Tensor | None = None
    gradient: bool = False


@dataclass
class Outcome:
    """What a trial gave, one entry a picture; without a gradient only pixels (H, W, 3) uint8 and found are filled."""

    pixels: list[np.ndarray] = field(default_factory=list)
    found: list[dict[str, int]] = field(default_factory=list)
    potential: list[float] = field(default_factory=list)
    scale: list[float] = field(default_factory=list)
    count_losses: list[float] = field(default_factory=list)
    clip_losses: list[float] = field(default_factory=list)

    def images(self) -> list[Image.Image]:
        """The pictures."""
        return [Image.fromarray(pixels) for pixels in self.pixels]


@dataclass(frozen=True)
class Look:
    """What is seen of a class in each picture, and the potential (B,) where there is a gradient."""

    seen: list[Detections]
    potential: torch.Tensor | None = None

    @property
    def counts(self) -> list[int]:
        """How many objects there are in each picture."""
        return [one.count for one in self.seen]


class Judge:
    """Counts pictures and sends the loss back. prompt: as the pipeline reads it; plain: as CLIP does.

    scales: the last good potential per object of each class.
    """

    def __init__(self, sampler: Sampler, prompt: str, plain: str, goal: Goal, counter: Counter, options: Options):
        guide = options.guide or counter
        if options.gradient and not isinstance(guide, Guide):
            raise InputError(
                f"{type(guide).__name__} counts but has no potential to follow: pass guide= a counter that has one"
            )
        self.sampler, self.prompt, self.plain, self.goal = sampler, prompt, plain, goal
        self.counter, self.guide, self.options = counter, guide, options
        self.scales = dict.fromkeys(goal.counts, 1.0)

    def try_out(self, trial: Trial) -> Outcome:
        """Draw and count, batch by batch; with a gradient, back through each before the next is drawn."""
        outcome, size = Outcome(), self.options.batch
        for first in range(0, len(trial.seeds), size):
            seeds = trial.seeds[first : first + size]
            latents = None if trial.latents is None else trial.latents[first : first + size]
            with torch.set_grad_enabled(trial.gradient):
                images = self.sampler.draw(self.prompt, seeds, latents, trial.gradient)
                pixels = (images.detach() * 255).round().byte()
                outcome.pixels += (arrays := list(pixels.permute(0, 2, 3, 1).cpu().numpy()))
                pictures = [Image.fromarray(one) for one in arrays]
                seen = pixels.float() / 255 + (images - images.detach()) if trial.gradient else None
                looks = [self.look(pictures, seen, label) for label in self.goal.counts]
                counts = zip(*(look.counts for look in looks), strict=True)
                found = [dict(zip(self.goal.counts, one, strict=True)) for one in counts]
                outcome.found += found
                if trial.gradient:
                    loss = self.loss(images, looks, outcome).sum() / len(trial.seeds)
                    if any(map(self.goal.error, found)):
                        loss.backward()
        return outcome

    def look(self, pictures: list[Image.Image], seen: torch.Tensor | None, label: str) -> Look:
        """At the objects of a class; one pass of the counter gives count and potential where it can.

        seen: the pictures (B, 3, H, W) in the eight bits a file will hold, with the gradient of those drawn; None
        where none is wanted.
        """
        self.sampler.compute.detector += len(pictures)
        if seen is None:
            return Look(self.counter.detect(pictures, label))
        masks: list[torch.Tensor] = []
        seen = seen.clone()  # each class has a mask of its own
        if self.options.focus:
            seen.register_hook(lambda gradient: gradient * masks[0])
        if self.guide is self.counter and hasattr(self.counter, "examine"):
            look = Look(*self.counter.examine(seen, label))
        else:
            look = Look(self.counter.detect(pictures, label), self.guide.potential(seen, label))
        if self.options.focus:
            masks.append(focus(seen, [one.boxes for one in look.seen], self.goal.counts[label]))
        return look

    def loss(self, images: torch.Tensor, looks: list[Look], outcome: Outcome) -> torch.Tensor:
        """(B,) of pictures (B, 3, H, W); what it consists of is noted in `outcome`."""
        counts = torch.zeros(len(images), device=images.device)
        for index, (look, (label, n)) in enumerate(zip(looks, self.goal.counts.items(), strict=True)):
            scale = self.scale(label, look.potential, look.counts)
            counts = counts + count_loss(look.potential, scale, n)
            if index == 0:
                outcome.potential += look.potential.tolist()
                outcome.scale += scale.tolist()
        clips = torch.zeros_like(counts) if self.options.clip is None else self.options.clip(images, self.plain)
        outcome.count_losses += counts.tolist()
        outcome.clip_losses += clips.tolist()
        return counts + self.options.clip_weight * clips

    def scale(self, label: str, potential: torch.Tensor, found: list[int]) -> torch.Tensor:
        """(B,): the static scale of the options, else that of the detections."""
        if self.options.scale is not None:
            return torch.full_like(potential.detach(), self.options.scale)
        scale = dynamic_scale(potential, found, self.scales[label])
        if any(found):
            self.scales[label] = float(scale[[count > 0 for count in found]].mean())
        return scale


def mean(values: list[float]) -> Any:
    """None of nothing."""
    return sum(values) / len(values) if values else None
