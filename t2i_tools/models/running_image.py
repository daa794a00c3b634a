"""What a running image will become, read from a step that its scheduler is about to make.

With x = a x0 + s e the scheduler's sample, e the noise, and m what the model predicts, guidance included,

    x0 = (x - s m) / a                  epsilon             (Ho et al. 2020, arXiv 2006.11239)
    x0 = m                              sample
    x0 = (a x / r - s m) / r            v_prediction        (Salimans and Ho 2022, arXiv 2202.00512), r^2 = a^2 + s^2
    x0 = x - s m                        flow matching       (Lipman et al. 2023, arXiv 2210.02747), a = 1 - s

It is read where the pipeline calls `scheduler.step`: there the prediction is guided, and has the sign that the
scheduler expects. Of second-order schedulers the first stage of a step is read. Latents that a pipeline packs to
tokens are brought into the VAE's shape as the family's record says, which takes the size that the call asked for.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from t2i_tools.errors import UnsupportedModelError
from t2i_tools.models.anatomy import denoiser
from t2i_tools.models.families import Family, find_family
from t2i_tools.models.latents import scaled

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.images.sizes import Size

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


@dataclass
class RunningImage:
    """The images of a running call, at a step that the scheduler is about to make.

    Args:
        pipe: the pipeline.
        output: what the model predicts.
        timestep: of the step.
        sample: the scheduler's latents, in their shape: (B, C, h, w), or packed to tokens (B, N, C).
        size: (height, width) in pixels that the call asked for; None where nothing needs it.
    """

    pipe: DiffusionPipeline
    output: torch.Tensor
    timestep: Any
    sample: torch.Tensor
    size: Size | None

    @property
    def is_first_stage(self) -> bool:
        """Whether the step is one of a first-order scheduler, or the first stage of one."""
        return getattr(self.pipe.scheduler, "state_in_first_order", True)

    @torch.no_grad()
    def images(self, number: int | None = None) -> torch.Tensor:
        """Return what the first `number` of them will become, all where it is None: (B, 3, H, W) in [0, 1]."""
        output, sample = self.output[:number], self.sample[:number]
        return decoded(self.pipe, predicted_x0(self.pipe.scheduler, output, self.timestep, sample), self.size)


def check_readable(pipe: DiffusionPipeline) -> None:
    """Refuse a pipeline of which it cannot be read what a running image becomes.

    Raises:
        UnsupportedModelError: with the reason.
    """
    scheduler, vae, name = pipe.scheduler, getattr(pipe, "vae", None), type(pipe).__name__
    if _space(scheduler) is None:
        raise UnsupportedModelError(
            f"early looks do not support {type(scheduler).__name__}: use another scheduler, or leave early looks out"
        )
    family = _family(pipe)
    if family and family.vae_latents:
        return
    if vae is None or not hasattr(vae.config, "scaling_factor") or not hasattr(pipe, "image_processor"):
        raise UnsupportedModelError(f"early looks cannot decode the latents of {name}: leave early looks out")
    channels = getattr(denoiser(pipe).config, "in_channels", None)
    if family and family.packed or getattr(vae.config, "latent_channels", None) != channels:
        raise UnsupportedModelError(
            f"{name} packs its latents, or adds to them, in a way that an early look cannot undo: leave early looks out"
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


def decoded(pipe: DiffusionPipeline, latents: torch.Tensor, size: Size | None = None) -> torch.Tensor:
    """Decode latents of a pipeline's loop to images (B, 3, H, W) in [0, 1], as the pipeline does at its end.

    Args:
        pipe: the pipeline.
        latents: (B, C, h, w), or packed to tokens (B, N, C).
        size: (height, width) in pixels of the call; needed for packed latents alone.

    Raises:
        UnsupportedModelError: it is not known how they are packed, or to which size.
    """
    vae, family = pipe.vae, _family(pipe)
    if family and family.vae_latents:
        if size is None and family.packed:
            raise UnsupportedModelError(f"{type(pipe).__name__} has not said the size to which its latents are packed")
        latents = family.vae_latents(pipe, latents, size)
    elif latents.ndim == 4:
        latents = scaled(vae, latents)
    else:
        raise UnsupportedModelError(
            f"{type(pipe).__name__} runs on latents of shape {tuple(latents.shape)}, which an early look cannot unpack"
        )
    dtype = vae.dtype
    needs_float = dtype == torch.float16 and getattr(vae.config, "force_upcast", False)
    try:
        if needs_float:
            vae.to(torch.float32)
        images = vae.decode(latents.to(vae.dtype), return_dict=False)[0]
    finally:
        if needs_float:
            vae.to(dtype)
    images = images[:, :, 0] if images.ndim == 5 else images  # a video of one frame
    return pipe.image_processor.postprocess(images.detach(), output_type="pt").float()


@contextmanager
def watched(pipe: DiffusionPipeline, see: Callable[[RunningImage], object]) -> Iterator[None]:
    """Inside the block, `see` gets the running images before each step; it may end the call by raising `CallEnded`.

    The scheduler has its own `step`, and the pipeline its own `prepare_latents`, again afterwards.
    """
    step, family = pipe.scheduler.step, _family(pipe)

    def stepping(model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        see(RunningImage(pipe, model_output, timestep, sample, sizes[-1] if sizes else None))
        return step(model_output, timestep, sample, *args, **kwargs)

    with _noting_sizes(pipe, bool(family and family.packed)) as sizes, replaced_step(pipe, stepping):
        yield


@contextmanager
def _noting_sizes(pipe: DiffusionPipeline, needed: bool) -> Iterator[list[Size]]:
    """Collect the (height, width) that calls ask for, inside the block."""
    sizes: list[Size] = []
    prepare = getattr(pipe, "prepare_latents", None)
    if not needed or prepare is None or not {"height", "width"} <= inspect.signature(prepare).parameters.keys():
        yield sizes
        return
    before = vars(pipe).get("prepare_latents")

    def noting(*args: Any, **kwargs: Any) -> Any:
        named = inspect.signature(prepare).bind(*args, **kwargs).arguments
        sizes.append((int(named["height"]), int(named["width"])))
        return prepare(*args, **kwargs)

    pipe.prepare_latents = noting
    try:
        yield sizes
    finally:
        if vars(pipe).get("prepare_latents") is noting:
            del pipe.prepare_latents
            if before is not None:
                pipe.prepare_latents = before


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


def _family(pipe: DiffusionPipeline) -> Family | None:
    """The record of the pipeline's family; None for one that is not known."""
    try:
        return find_family(denoiser(pipe))
    except UnsupportedModelError:
        return None


def _space(scheduler: Any) -> str | None:
    names = (kind.__name__ for kind in type(scheduler).__mro__)
    return next((SCHEDULERS[name] for name in names if name in SCHEDULERS), None)


def _index(scheduler: Any, timestep: Any) -> int:
    """The place in `sigmas` of the step about to be made."""
    if scheduler.step_index is not None:
        return scheduler.step_index
    return scheduler.index_for_timestep(torch.as_tensor(timestep)) if scheduler.begin_index is None else 0
