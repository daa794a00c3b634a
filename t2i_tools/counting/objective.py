"""The objective of a search: a trial's images drawn, counted and, with a gradient, taken back to what is learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image

from t2i_tools.counting.early_look import Look
from t2i_tools.counting.formula import count_loss, dynamic_scale, focus
from t2i_tools.counting.look_record import Looks
from t2i_tools.counting.options import CountOptions, Goal
from t2i_tools.counting.sampler import Sampler
from t2i_tools.detectors import Counter, Detections, Guide
from t2i_tools.errors import InputError
from t2i_tools.images.eight_bits import eight_bits


@dataclass(frozen=True)
class Trial:
    """What to draw: one image per seed.

    Args:
        seeds: B seeds.
        latents: initial noise (B, ...) instead of the seeds' own.
        gradient: record a graph.
        plain: of the prompt as a person would say it, without a token.
        whole: to the end, whatever an early look sees.
    """

    seeds: tuple[int, ...]
    latents: torch.Tensor | None = None
    gradient: bool = False
    plain: bool = False
    whole: bool = False


@dataclass
class Outcome:
    """What a trial came to, one entry per image.

    Args:
        pixels: (H, W, 3) uint8.
        counted: class -> objects that the counter saw.
        potential: of the first class; this and what follows only with a gradient.
        scale: potential per object, of the first class.
        count_losses: the count term, summed over the classes.
        clip_losses: the CLIP term.
        boxes: per image, class -> boxes (k, 4) xyxy in pixels.
        look: what an early look counted, of the first image; None without one.
        ended: whether the trial was ended at the look; the pixels are then of the predicted image.
    """

    pixels: list[np.ndarray] = field(default_factory=list)
    counted: list[dict[str, int]] = field(default_factory=list)
    potential: list[float] = field(default_factory=list)
    scale: list[float] = field(default_factory=list)
    count_losses: list[float] = field(default_factory=list)
    clip_losses: list[float] = field(default_factory=list)
    boxes: list[dict[str, torch.Tensor]] = field(default_factory=list)
    look: dict[str, int] | None = None
    ended: bool = False

    def images(self) -> list[Image.Image]:
        """Return the images as PIL's."""
        return [Image.fromarray(pixels) for pixels in self.pixels]


@dataclass(frozen=True)
class Observation:
    """What is seen of a class: detections per image, and the potential (B,) where there is a gradient."""

    detections: list[Detections]
    potential: torch.Tensor | None = None

    @property
    def counts(self) -> list[int]:
        """How many objects there are in each image."""
        return [one.count for one in self.detections]


class Objective:
    """Counts the images of a trial and sends the loss back.

    Args:
        sampler: draws the images and counts the compute.
        prompt: as the pipeline reads it.
        plain: as a person would say it, for the CLIP term.
        goal: what to count, and how many are wanted.
        counter: counts.
        options: of the search.
        looks: early looks; None for none.

    Raises:
        InputError: the method needs a gradient and no detector gives one.
    """

    def __init__(
        self,
        sampler: Sampler,
        prompt: str,
        plain: str,
        goal: Goal,
        counter: Counter,
        options: CountOptions,
        looks: Looks | None = None,
    ) -> None:
        guide = options.guide or counter
        if options.gradient and not isinstance(guide, Guide):
            raise InputError(
                f"{type(guide).__name__} counts but has no potential to follow: pass guide= a counter that has one"
            )
        self.sampler, self.prompt, self.plain, self.goal = sampler, prompt, plain, goal
        self.counter, self.guide, self.options, self.looks = counter, guide, options, looks
        self.clip_text = plain if options.clip_text == "prompt" else " and ".join(goal.counts)
        self.scales = dict.fromkeys(goal.counts, 1.0)  # the last good potential per object of each class

    def evaluate(self, trial: Trial) -> Outcome:
        """Draw and count, batch by batch; with a gradient, back through each before the next is drawn."""
        outcome, size = Outcome(), self.options.batch
        for first in range(0, len(trial.seeds), size):
            seeds = trial.seeds[first : first + size]
            latents = None if trial.latents is None else trial.latents[first : first + size]
            look, prompt = self._look(trial, outcome), self.plain if trial.plain else self.prompt
            with torch.set_grad_enabled(trial.gradient):
                drawn = self.sampler.draw(prompt, seeds, latents, trial.gradient, look)
                outcome.ended = look is not None and look.ended
                self._take(drawn, trial, outcome)
            if look is not None and look.cost is not None:
                self._note_look(outcome, look.cost)
        return outcome

    def _note_look(self, outcome: Outcome, cost: float) -> None:
        """Take in what a look saw, and its measured cost."""
        assert self.looks is not None and outcome.look is not None  # or nobody had looked
        is_exact = None if outcome.ended else not self.goal.error(outcome.counted[0])
        cost = self.looks.note(self.goal.error(outcome.look), is_exact, cost)
        self.sampler.compute.looks += math.ceil(cost * self.sampler.image_passes)

    def _look(self, trial: Trial, outcome: Outcome) -> Look | None:
        """A look at a trial of one image without a graph, where looks are worth their cost."""
        if self.looks is None or trial.gradient or len(trial.seeds) > 1 or (reach := self.looks.reach()) is None:
            return None
        if trial.whole and self.looks.record.is_known():  # the look would change nothing and teach little
            return None

        def on_images(images: torch.Tensor) -> bool:
            bits = eight_bits(images[:1]).permute(0, 2, 3, 1).cpu().numpy()
            seen = [self.observe([Image.fromarray(bits[0])], None, label).counts[0] for label in self.goal.counts]
            outcome.look = dict(zip(self.goal.counts, seen, strict=True))
            return trial.whole or self.goal.error(outcome.look) <= reach

        return Look(on_images, self.options.look_at)

    def _take(self, drawn: torch.Tensor, trial: Trial, outcome: Outcome) -> None:
        """Count the images (B, 3, H, W) of one batch into `outcome`, and take the gradient of those that are wrong."""
        bits = eight_bits(drawn)
        pixels = list(bits.permute(0, 2, 3, 1).cpu().numpy())
        outcome.pixels += pixels
        if outcome.ended and outcome.look is not None:
            outcome.counted.append(outcome.look)
            return
        images = [Image.fromarray(one) for one in pixels]
        seen = bits.float() / 255 + (drawn - drawn.detach()) if trial.gradient else None
        observations = [self.observe(images, seen, label) for label in self.goal.counts]
        by_image = zip(*(observation.counts for observation in observations), strict=True)
        counted = [dict(zip(self.goal.counts, counts, strict=True)) for counts in by_image]
        outcome.counted += counted
        outcome.boxes += [
            {label: one.detections[i].boxes for label, one in zip(self.goal.counts, observations, strict=True)}
            for i in range(len(images))
        ]
        if trial.gradient:
            loss = self.loss(drawn, observations, outcome).sum() / len(trial.seeds)
            if any(map(self.goal.error, counted)) or (self.options.best_by == "loss" and float(loss)):
                self.sampler.backward(loss)

    def observe(self, images: list[Image.Image], seen: torch.Tensor | None, label: str) -> Observation:
        """Count the objects of a class; one pass of the counter gives count and potential where it can.

        Args:
            images: B images.
            seen: the same (B, 3, H, W) in the eight bits a file will hold, with the gradient of those drawn; None where
                no gradient is wanted.
            label: the class.
        """
        self.sampler.compute.detector += len(images)
        if seen is None:
            return Observation(self.counter.detect(images, label))
        masks: list[torch.Tensor] = []
        seen = seen.clone()  # each class has a mask of its own
        if self.options.focus:
            seen.register_hook(lambda gradient: gradient * masks[0])
        assert isinstance(self.guide, Guide)  # or no gradient was wanted
        if self.guide is self.counter and hasattr(self.counter, "examine"):
            observation = Observation(*self.counter.examine(seen, label))
        else:
            observation = Observation(self.counter.detect(images, label), self.guide.potential(seen, label))
        if self.options.focus:
            masks.append(focus(seen, [one.boxes for one in observation.detections], self.goal.counts[label]))
        return observation

    def loss(self, images: torch.Tensor, observations: list[Observation], outcome: Outcome) -> torch.Tensor:
        """Return the loss (B,) of images (B, 3, H, W), and note in `outcome` what it consists of."""
        counts = torch.zeros(len(images), device=images.device)
        for index, (observation, (label, n)) in enumerate(zip(observations, self.goal.counts.items(), strict=True)):
            potential = observation.potential
            assert potential is not None  # it was observed for a gradient
            scale = self.scale(label, potential, observation.counts)
            counts = counts + count_loss(potential, scale, n)
            if index == 0:
                outcome.potential += potential.tolist()
                outcome.scale += scale.tolist()
        clips = torch.zeros_like(counts) if self.options.clip is None else self.options.clip(images, self.clip_text)
        outcome.count_losses += counts.tolist()
        outcome.clip_losses += clips.tolist()
        return counts + self.options.clip_weight * clips

    def scale(self, label: str, potential: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        """Return the potential (B,) per object: the static scale of the options, else that of the detections."""
        if self.options.scale is not None:
            return torch.full_like(potential.detach(), self.options.scale)
        scale = dynamic_scale(potential, counts, self.scales[label])
        if any(counts):
            self.scales[label] = float(scale[[count > 0 for count in counts]].mean())
        return scale


def mean(values: list[float]) -> float | None:
    """Return the mean, None where there are no values."""
    return sum(values) / len(values) if values else None
