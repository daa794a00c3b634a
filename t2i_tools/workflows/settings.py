"""The settings of an image: what a model takes by itself, and what a file says of how it was made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i_tools._version import __version__
from t2i_tools.errors import InputError
from t2i_tools.images.generate import Request
from t2i_tools.images.guidance import default_guidance
from t2i_tools.images.signature import call_default
from t2i_tools.models.anatomy import denoiser
from t2i_tools.models.parts import sampler_of
from t2i_tools.workflows.open_model import BUNDLED_FEW_STEPS, BUNDLED_FORMS, ModelOptions

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def with_defaults(request: Request, pipe: DiffusionPipeline, model: str) -> Request:
    """The request with the steps and guidance that the pipeline would take by itself, so that the file records them.

    Raises InputError for a negative prompt that would not act.
    """
    usual: tuple[int | None, float | None]
    if model in BUNDLED_FORMS:
        from t2i_tools.bundled import bundled_defaults

        usual = bundled_defaults(few_steps=model == BUNDLED_FEW_STEPS)
    else:
        usual = call_default(pipe, "num_inference_steps"), default_guidance(pipe, request.negative)
    steps, guidance = usual
    request = replace(
        request,
        steps=steps if request.steps is None else request.steps,
        guidance=guidance if request.guidance is None else request.guidance,
    )
    if model == BUNDLED_FEW_STEPS and request.negative and (request.guidance or 0) <= 1:
        raise InputError(
            "the four-step form is made for a guidance scale of 1, at which a negative prompt does not act: leave the "
            "negative prompt out, or set guidance above 1"
        )
    return request


def image_settings(pipe: DiffusionPipeline, chosen: ModelOptions, request: Request) -> dict[str, Any]:
    """What it takes to make the image again, for the file and for --json."""
    import diffusers
    import torch

    settings = {
        "prompt": request.prompt,
        "negative": request.negative,
        "seed": request.seed,
        "steps": request.steps,
        "guidance": request.guidance,
        "scheduler": str(sampler_of(pipe.scheduler)),
        "model": short_name(chosen.model),
        "vae": chosen.vae and short_name(chosen.vae),
        "lora": [{"file": Path(file).name, "scale": scale} for file, scale in chosen.loras()] or None,
        "dtype": str(denoiser(pipe).dtype).removeprefix("torch."),
        "versions": {"t2i-tools": __version__, "diffusers": diffusers.__version__, "torch": torch.__version__},
    }
    return {name: value for name, value in settings.items() if value is not None}


def short_name(source: str) -> str:
    """Without the folders it lies in, which are nobody else's business; a Hub id keeps its owner."""
    return Path(source).stem if Path(source).expanduser().exists() else source
