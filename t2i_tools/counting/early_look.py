"""An early look at a running image: the trial ends there where what it will become leaves it no chance.

What a running image will become is read as `t2i_tools.models.running_image` says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from t2i_tools.errors import UnsupportedModelError
from t2i_tools.models.running_image import CallEnded, RunningImage, check_readable, watched

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

LEAST_STEPS = 8  # of fewer, half-way is too early to see anything
LOOK_AT = 0.5  # of the steps


class TrialEnded(CallEnded):
    """Ends a call at an early look. images: what it saw, (B, 3, H, W) in [0, 1]."""

    def __init__(self, images: torch.Tensor) -> None:
        super().__init__("the image was ended at an early look")
        self.images = images


@dataclass
class Look:
    """When to look, and what to do with what is seen.

    Args:
        on_images: called with the predicted images (B, 3, H, W) in [0, 1]; returns whether to go on.
        at: share of the steps whose denoising is done when it looks.
        cost: what the look took, decoding and `on_images` included, as a share of the denoising of the whole call by
            the clock; None before it.
        ended: whether the call was ended.
    """

    on_images: Callable[[torch.Tensor], bool]
    at: float = LOOK_AT
    cost: float | None = None
    ended: bool = False


def check_look(pipe: DiffusionPipeline, steps: int | None = None) -> None:
    """Refuse an early look where what a running image becomes cannot be read.

    Args:
        pipe: a text-to-image pipeline.
        steps: of its images, where they are known.

    Raises:
        UnsupportedModelError: with the reason.
    """
    check_readable(pipe)
    if steps is not None and steps < LEAST_STEPS:
        raise UnsupportedModelError(f"{steps} steps are too few for an early look: use {LEAST_STEPS} or more")
    if getattr(pipe, "safety_checker", None) is not None and not hasattr(pipe, "run_safety_checker"):
        raise UnsupportedModelError(
            f"the safety checker of {type(pipe).__name__} cannot be run on an early look: leave early looks out"
        )


@contextmanager
def looking(pipe: DiffusionPipeline, look: Look | None) -> Iterator[None]:
    """While it lasts, a call of the pipeline looks once at its image; `TrialEnded` ends a call that shall not go on.

    Everything is undone afterwards. A call of fewer than LEAST_STEPS steps is not looked at.
    """
    if look is None:
        yield
        return
    scheduler, calls, first = pipe.scheduler, 0, 0.0

    def see(running: RunningImage) -> None:
        nonlocal calls, first
        calls, total, device = calls + 1, len(scheduler.timesteps), running.sample.device
        first = first or _now(device)
        is_due = calls >= math.ceil(look.at * total) and running.is_first_stage
        if is_due and look.cost is None and 1 < calls < total and scheduler.num_inference_steps >= LEAST_STEPS:
            now = _now(device)
            images = running.images()
            goes_on = look.on_images(images)
            look.cost = (_now(device) - now) / ((now - first) / (calls - 1)) / total
            if not goes_on:
                look.ended = True
                raise TrialEnded(images)

    with watched(pipe, see):
        yield


def _now(device: torch.device) -> float:
    """The time in seconds, after all that a GPU has been given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
