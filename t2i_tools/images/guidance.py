"""What a pipeline's call must be given so that guidance and a negative prompt act.

True guidance runs the denoiser with the prompt and with the negative prompt (Ho and Salimans 2022, arXiv 2207.12598).
Embedded guidance gives a distilled denoiser the scale as an input, and runs it once. Some pipelines have an argument
for each, and ignore the one that does not fit their denoiser; with embedded guidance they ignore a negative prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from t2i_tools.errors import UnsupportedModelError
from t2i_tools.images.signature import call_default, takes
from t2i_tools.models.anatomy import denoiser
from t2i_tools.models.families import find_family

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

TRUE_SCALE = "true_cfg_scale"
NO_NEGATIVE = " "  # the empty negative prompt that Qwen-Image was trained with


def scale_argument(pipe: DiffusionPipeline) -> str | None:
    """The argument of the pipeline's call by which guidance acts; None where there is none."""
    if _ignores_guidance(pipe):
        return None
    names = ["guidance_scale"]
    if _config(pipe, "guidance_embeds"):
        names.append("distilled_guidance_scale")
    elif takes(pipe, TRUE_SCALE):  # the other is for denoisers that embed it
        names = [TRUE_SCALE]
    return next((name for name in names if takes(pipe, name)), None)


def default_guidance(pipe: DiffusionPipeline, negative: str | None = None) -> float | None:
    """The guidance scale that acts where none is asked for; None where nothing guides."""
    name = scale_argument(pipe)
    if name is None or (name == TRUE_SCALE and not negative):
        return None
    return call_default(pipe, name)


def check_guidance(pipe: DiffusionPipeline, guidance: float | None, negative: str | None) -> None:
    """Raise UnsupportedModelError for guidance, or a negative prompt, that would not act."""
    name, argument = type(pipe).__name__, scale_argument(pipe)
    if guidance is not None and guidance > 1 and _ignores_guidance(pipe):
        raise UnsupportedModelError(f"{name} is distilled and ignores guidance: leave guidance out or set it to 1")
    if not negative:
        return
    if _config(pipe, "time_cond_proj_dim") or (takes(pipe, TRUE_SCALE) and argument != TRUE_SCALE):
        raise UnsupportedModelError(
            f"{name} embeds its guidance scale, so that a negative prompt would not act: leave it out"
        )
    scale = call_default(pipe, TRUE_SCALE) if guidance is None else guidance
    if argument == TRUE_SCALE and scale <= 1:
        raise UnsupportedModelError(
            f"{name} uses no guidance at a scale of {scale:g}, so that a negative prompt would not act: set "
            "guidance above 1"
        )


def guidance_arguments(
    pipe: DiffusionPipeline, guidance: float | None, negatives: Sequence[str | None]
) -> dict[str, Any]:
    """The arguments of the pipeline's call for guidance and negative prompts, one text per image of the batch."""
    arguments: dict[str, Any] = {}
    texts = [text or "" for text in negatives] if any(negatives) else None
    if guidance is not None:
        argument = scale_argument(pipe) or "guidance_scale"
        arguments[argument] = guidance
        if argument == TRUE_SCALE and guidance > 1 and texts is None:
            texts = [NO_NEGATIVE] * len(negatives)
        if takes(pipe, "guidance_schedule"):  # it has one by default, and takes no scale beside it
            arguments["guidance_schedule"] = None
    if texts is not None:
        arguments["negative_prompt"] = texts[0] if len(texts) == 1 else texts  # not every pipeline takes lists
    return arguments


def _ignores_guidance(pipe: DiffusionPipeline) -> bool:
    from t2i_tools.models.compiled import unwrapped  # torch takes seconds

    try:
        key = find_family(unwrapped(denoiser(pipe))).unguided_key
    except UnsupportedModelError:
        return False
    return bool(key and pipe.config.get(key))


def _config(pipe: DiffusionPipeline, key: str) -> Any:
    return getattr(denoiser(pipe).config, key, None)
