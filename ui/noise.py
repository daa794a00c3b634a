"""Initial noise that a search has learned: kept on the server, and named by what it holds."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from t2i_tools.errors import UnsupportedModelError
from t2i_tools.files import replacing
from t2i_tools.generation import Request, call_arguments, call_pipeline, takes
from t2i_tools.models import denoiser

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline
    from PIL import Image


def keep_noise(output: Path, latents: "torch.Tensor") -> str:
    """Keep the noise (1, ...); the name by which the values of a job and a file know it."""
    from safetensors.torch import save

    content = save({"latents": latents.contiguous()})
    name = hashlib.sha256(content).hexdigest()[:32]
    with replacing(_path(output, name)) as part:
        part.write_bytes(content)
    return name


def has_noise(output: Path, name: str) -> bool:
    """Whether the noise of this name is here."""
    return _path(output, name).exists()


def draw_from(
    pipe: "DiffusionPipeline",
    request: Request,
    output: Path,
    name: str,
    on_step: Callable[[int, int], None] | None = None,
) -> "Image.Image":
    """The image that begins with the noise of this name instead of the seed's. Raises what `generate_images` raises."""
    from safetensors.torch import load_file

    if not takes(pipe, "latents"):
        raise UnsupportedModelError(f"{type(pipe).__name__} takes no noise to begin with")
    latents = load_file(_path(output, name))["latents"].to(denoiser(pipe).device, denoiser(pipe).dtype)
    (image,) = call_pipeline(pipe, [request], call_arguments(pipe, [request], on_step) | {"latents": latents})
    return image


def _path(output: Path, name: str) -> Path:
    return output / "noise" / f"{name}.safetensors"
