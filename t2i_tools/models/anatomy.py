"""What a pipeline consists of, whatever its family: denoiser, text encoders, sizes."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

from t2i_tools.errors import UnsupportedModelError
from t2i_tools.models.families import FAMILIES, Family
from t2i_tools.models.readings import TextEncoder

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline, ModelMixin
    from torch import nn


ALIGNMENT = 64


def denoiser(pipe: DiffusionPipeline | nn.Module) -> ModelMixin:
    """The UNet or transformer of a pipeline; a bare denoiser is handed back. Raises UnsupportedModelError."""
    for name in ("unet", "transformer"):
        if (model := getattr(pipe, name, None)) is not None:
            return model
    if hasattr(pipe, "forward"):
        return pipe
    raise UnsupportedModelError(
        f"{type(pipe).__name__} has neither a unet nor a transformer: use a diffusers text-to-image pipeline"
    )


def controlnets(pipe: DiffusionPipeline | nn.Module) -> dict[str, nn.Module]:
    """A pipeline's ControlNets by where they are in it: "controlnet", or "controlnet.nets.0"... May be empty."""
    control = getattr(pipe, "controlnet", None)
    if (nets := getattr(control, "nets", None)) is not None:
        return {f"controlnet.nets.{index}": net for index, net in enumerate(nets)}
    return {} if control is None else {"controlnet": control}


def other_denoisers(pipe: DiffusionPipeline | nn.Module) -> dict[str, nn.Module]:
    """Denoisers beside the first one, by where they are in a pipeline: of Ideogram 4, what guidance compares with."""
    other = getattr(pipe, "unconditional_transformer", None)
    return {} if other is None else {"unconditional_transformer": other}


def execution_device(pipe: DiffusionPipeline | nn.Module) -> torch.device:
    """Where the denoiser computes and wants its inputs: with offloading, its weights wait elsewhere."""
    from diffusers.utils.torch_utils import get_module_execution_device

    return get_module_execution_device(denoiser(pipe))


def text_encoders(pipe: DiffusionPipeline) -> list[TextEncoder]:
    """The text encoders in the pipeline's own order, without those it was loaded without. May be empty.

    Without those that read something else than the prompt, too. Where a pipeline has a processor, its tokenizer.
    """
    folders = ".".join(base.__module__ for base in type(pipe).__mro__).split(".")
    aside = [name for family in FAMILIES if family.aside and family.name in folders for name in family.aside]
    names = [f"text_encoder{suffix}" for suffix in ("", "_2", "_3", "_4")]
    parts = [(name, getattr(pipe, name, None), name.replace("text_encoder", "tokenizer")) for name in names]
    processor = getattr(pipe, "processor", None)
    return [
        TextEncoder(name, encoder, _tokenizer(getattr(pipe, tokenizer, processor)))
        for name, encoder, tokenizer in parts
        if encoder is not None and name not in aside
    ]


def align(pipe: DiffusionPipeline) -> None:
    """Move weights on the CPU to where torch's allocations start, multiples of ALIGNMENT bytes.

    The last bits of a product depend on where its factors lie, and the weights of a mapped file lie anywhere.
    """
    import torch

    for part in pipe.components.values():
        for tensor in (*part.parameters(), *part.buffers()) if isinstance(part, torch.nn.Module) else ():
            if type(tensor.data) is torch.Tensor and tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNMENT:
                tensor.data = tensor.data.clone()


def native_size(pipe: DiffusionPipeline) -> tuple[int, int] | None:
    """The size the model was trained at, (height, width) in pixels; None where neither config nor pipeline says.

    What a pipeline makes by default counts more than the config, whose own default another checkpoint may have left.
    """
    arguments = inspect.signature(type(pipe).__call__).parameters
    height, width = (arguments[name].default if name in arguments else None for name in ("height", "width"))
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    sample = getattr(denoiser(pipe).config, "sample_size", None) or getattr(pipe, "default_sample_size", None)
    if sample is None:
        return None
    height, width = (sample, sample) if isinstance(sample, int) else sample[-2:]
    return height * _vae_factor(pipe), width * _vae_factor(pipe)


def size_multiple(pipe: DiffusionPipeline) -> int:
    """Pixels of which each side of an image must be a whole multiple: the VAE's factor times the patch."""
    # Flux, Qwen-Image and Z-Image patch inside the pipeline; there the image processor's factor holds the patch too.
    processor = getattr(getattr(pipe, "image_processor", None), "config", None)
    family = _family(pipe)
    latents = _latent_pixels(pipe) * (family.sides(denoiser(pipe).config) if family and family.sides else 1)
    return math.lcm(latents, getattr(processor, "vae_scale_factor", 1))


def token_pixels(pipe: DiffusionPipeline) -> int:
    """Pixels along one side of a token."""
    family = _family(pipe)
    return _latent_pixels(pipe) if family is not None and family.sides else size_multiple(pipe)


def longest_side(pipe: DiffusionPipeline) -> int | None:
    """The pixels of a side beyond which the model has no position embeddings; None where it has them for any size."""
    family = _family(pipe)
    if family is None or family.position_limit is None:
        return None
    return family.position_limit(denoiser(pipe).config) * size_multiple(pipe)


def _tokenizer(reader: Any) -> Any:
    return getattr(reader, "tokenizer", reader)


def _family(pipe: DiffusionPipeline) -> Family | None:
    """The record of the pipeline's denoiser; None where there is none."""
    model = denoiser(pipe)
    return next((one for one in FAMILIES if one.has_denoiser(type(model).__name__, model)), None)


def _latent_pixels(pipe: DiffusionPipeline) -> int:
    """Pixels along one side of what the denoiser makes a token of: the VAE's factor times its own patch."""
    patch = getattr(denoiser(pipe).config, "patch_size", None) or 1
    return _vae_factor(pipe) * (patch if isinstance(patch, int) else patch[-1])


def _vae_factor(pipe: DiffusionPipeline) -> int:
    return getattr(pipe, "vae_scale_factor", getattr(pipe, "vae_scale_factor_spatial", 1))
