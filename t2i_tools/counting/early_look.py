"""An early look at a running image: what it will become, read from one step of its scheduler.

With x = a x0 + s e the scheduler's sample, e the noise, and m what the model predicts, guidance included,

    x0 = (x - s m) / a                  epsilon             (Ho et al. 2020, arXiv 2006.11239)
    x0 = m                              sample
    x0 = (a x / r - s m) / r            v_prediction        (Salimans and Ho 2022, arXiv 2202.00512), r^2 = a^2 + s^2
    x0 = x - s m                        flow matching       (Lipman et al. 2023, arXiv 2210.02747), a = 1 - s

It is read where the pipeline calls `scheduler.step`: there the prediction is guided, and has the sign that the
scheduler expects. Of second-order schedulers the first stage of a step is read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from t2i_tools.errors import UnsupportedModelError
from t2i_tools.models.anatomy import denoiser

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

LEAST_STEPS = 8  # of fewer, half-way is too early to see anything
LOOK_AT = 0.5  # of the steps

# What a and s are, by class: the square root of alphas_cumprod, or from the step's sigma.
SCHEDULERS = {
    "DDIMScheduler": "alphas",
    "DDIMParallelScheduler": "alphas",
    "DDPMScheduler": "alphas",
    "DDPMParallelScheduler": "alphas",
    "PNDMScheduler": "alphas",
    "LCMScheduler": "alphas",
    "TCDScheduler": "alphas",
    "DPMSolverMultistepScheduler": "variance preserving",
    "DPMSolverSinglestepScheduler": "variance preserving",
    "UniPCMultistepScheduler": "variance preserving",
    "DEISMultistepScheduler": "variance preserving",
    "SASolverScheduler": "variance preserving",
    "EulerDiscreteScheduler": "variance exploding",
    "EulerAncestralDiscreteScheduler": "variance exploding",
    "HeunDiscreteScheduler": "variance exploding",
    "KDPM2DiscreteScheduler": "variance exploding",
    "KDPM2AncestralDiscreteScheduler": "variance exploding",
    "LMSDiscreteScheduler": "variance exploding",
    "FlowMatchEulerDiscreteScheduler": "flow",
    "FlowMatchHeunDiscreteScheduler": "flow",
    "FlowMatchLCMScheduler": "flow",
}


class CallEnded(Exception):
    """Ends a call of the pipeline early."""


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
    scheduler, vae = pipe.scheduler, getattr(pipe, "vae", None)
    if _space(scheduler) is None:
        raise UnsupportedModelError(
            f"early looks do not support {type(scheduler).__name__}: use another scheduler, or leave early looks out"
        )
    if steps is not None and steps < LEAST_STEPS:
        raise UnsupportedModelError(f"{steps} steps are too few for an early look: use {LEAST_STEPS} or more")
    if vae is None or not hasattr(vae.config, "scaling_factor") or not hasattr(pipe, "image_processor"):
        raise UnsupportedModelError(
            f"early looks cannot decode the latents of {type(pipe).__name__}: leave early looks out"
        )
    if getattr(vae.config, "latent_channels", None) != denoiser(pipe).config.in_channels:
        raise UnsupportedModelError(
            f"{type(pipe).__name__} packs its latents, or adds to them, in a way that an early look cannot undo"
        )
    if getattr(pipe, "safety_checker", None) is not None and not hasattr(pipe, "run_safety_checker"):
        raise UnsupportedModelError(
            f"the safety checker of {type(pipe).__name__} cannot be run on an early look: leave early looks out"
        )


def predicted_x0(scheduler: Any, output: torch.Tensor, timestep: Any, sample: torch.Tensor) -> torch.Tensor:
    """Return x0 (B, C, h, w) float32 as the model predicts it, from the arguments of a `scheduler.step` about to run.

    Args:
        scheduler: as it is before the step.
        output: what the model predicts (B, C, h, w); of learned variance (B, 2C, h, w), the second half is left out.
        timestep: of the step.
        sample: x (B, C, h, w).
    """
    a, s = noise_level(scheduler, timestep)
    x, m = sample.float(), output.float()[:, : sample.shape[1]]
    kind = "flow_prediction" if _space(scheduler) == "flow" else scheduler.config.get("prediction_type", "epsilon")
    match kind:
        case "epsilon":
            return (x - s * m) / a
        case "sample" | "original_sample":
            return m
        case "v_prediction":
            norm = math.hypot(a, s)
            return (a * x / norm - s * m) / norm
        case "flow_prediction":
            return x - s * m
    raise UnsupportedModelError(
        f"{type(scheduler).__name__} predicts {kind}, which early looks cannot read: leave them out"
    )


def noise_level(scheduler: Any, timestep: Any) -> tuple[float, float]:
    """Return a and s of x = a x0 + s e at the step that the scheduler is about to make."""
    space = _space(scheduler)
    if space == "alphas":
        alpha = float(scheduler.alphas_cumprod[int(timestep)])
        return alpha**0.5, (1 - alpha) ** 0.5
    sigma = float(scheduler.sigmas[_index(scheduler, timestep)])
    if space == "flow" or scheduler.config.get("use_flow_sigmas", False):
        return 1 - sigma, sigma
    if space == "variance preserving":
        alpha = 1 / (1 + sigma**2) ** 0.5
        return alpha, sigma * alpha
    return 1.0, sigma


def decoded(pipe: DiffusionPipeline, latents: torch.Tensor) -> torch.Tensor:
    """Decode latents (B, C, h, w) to images (B, 3, H, W) in [0, 1], as the pipeline does at its end.

    Raises:
        UnsupportedModelError: the latents are packed, or of a video.
    """
    if latents.ndim != 4:
        raise UnsupportedModelError(
            f"{type(pipe).__name__} runs on packed latents {tuple(latents.shape)}, which an early look cannot unpack"
        )
    vae, config = pipe.vae, pipe.vae.config
    mean, std = (getattr(config, name, None) for name in ("latents_mean", "latents_std"))
    if mean is not None and std is not None:
        mean, std = (latents.new_tensor(values).view(1, -1, 1, 1) for values in (mean, std))
        latents = latents * std / config.scaling_factor + mean
    else:
        latents = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0)
    dtype = vae.dtype
    needs_float = dtype == torch.float16 and getattr(config, "force_upcast", False)
    try:
        if needs_float:
            vae.to(torch.float32)
        images = vae.decode(latents.to(vae.dtype), return_dict=False)[0]
    finally:
        if needs_float:
            vae.to(dtype)
    return pipe.image_processor.postprocess(images.detach(), output_type="pt").float()


@contextmanager
def looking(pipe: DiffusionPipeline, look: Look | None) -> Iterator[None]:
    """While it lasts, a call of the pipeline looks once at its image; `TrialEnded` ends a call that shall not go on.

    The scheduler has its own `step` again afterwards. A call of fewer than LEAST_STEPS steps is not looked at.
    """
    if look is None:
        yield
        return
    scheduler, calls, first = pipe.scheduler, 0, 0.0
    step = scheduler.step

    def stepping(model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls, first
        calls, total = calls + 1, len(scheduler.timesteps)
        first = first or _now(sample.device)
        is_due = calls >= math.ceil(look.at * total) and getattr(scheduler, "state_in_first_order", True)
        if is_due and look.cost is None and 1 < calls < total and scheduler.num_inference_steps >= LEAST_STEPS:
            now = _now(sample.device)
            with torch.no_grad():
                images = decoded(pipe, predicted_x0(scheduler, model_output, timestep, sample))
                goes_on = look.on_images(images)
            look.cost = (_now(sample.device) - now) / ((now - first) / (calls - 1)) / total
            if not goes_on:
                look.ended = True
                raise TrialEnded(images)
        return step(model_output, timestep, sample, *args, **kwargs)

    with replaced_step(pipe, stepping):
        yield


@contextmanager
def replaced_step(pipe: DiffusionPipeline, step: Callable[..., Any]) -> Iterator[None]:
    """Replace the scheduler's `step` inside the block; the new one may end the call by raising `CallEnded`."""
    scheduler = pipe.scheduler
    before = vars(scheduler).get("step")
    scheduler.step = step
    try:
        yield
    except CallEnded:
        pipe.maybe_free_model_hooks()  # what the end of a call does for models that are offloaded
        raise
    finally:
        if vars(scheduler).get("step") is step:
            del scheduler.step
            if before is not None:
                scheduler.step = before


def _now(device: torch.device) -> float:
    """The time in seconds, after all that a GPU has been given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _space(scheduler: Any) -> str | None:
    names = (kind.__name__ for kind in type(scheduler).__mro__)
    return next((SCHEDULERS[name] for name in names if name in SCHEDULERS), None)


def _index(scheduler: Any, timestep: Any) -> int:
    """The place in `sigmas` of the step about to be made."""
    if scheduler.step_index is not None:
        return scheduler.step_index
    return scheduler.index_for_timestep(torch.as_tensor(timestep)) if scheduler.begin_index is None else 0
