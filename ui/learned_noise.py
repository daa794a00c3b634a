"""Initial noise that a search has learned: kept on the server, and named by what it holds."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from t2i_tools.errors import UnsupportedModelError
from t2i_tools.files import replacing
from t2i_tools.images.generate import Request, call_arguments, call_pipeline
from t2i_tools.images.signature import takes
from t2i_tools.models.anatomy import denoiser, execution_device

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline
    from PIL import Image

FOLDER = "noise"  # below the output folder


def keep_noise(output: Path, latents: "torch.Tensor") -> str:
    """Keep the noise (1, ...); the name by which the values of a job and a file know it."""
    from safetensors.torch import save

    content = save({"latents": latents.contiguous()})
    name = hashlib.sha256(content).hexdigest()[:32]
    with replacing(noise_path(output, name)) as part:
        part.write_bytes(content)
    return name


def has_noise(output: Path, name: str) -> bool:
    """Whether the noise of this name is here."""
    return noise_path(output, name).exists()


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
    dtype = cast("torch.dtype", denoiser(pipe).dtype)
    latents = load_file(noise_path(output, name))["latents"].to(execution_device(pipe), dtype)
    (image,) = call_pipeline(pipe, [request], call_arguments(pipe, [request], on_step) | {"latents": latents})
    return image


def noise_path(output: Path, name: str) -> Path:
    """The file of the noise of this name."""
    return output / FOLDER / f"{name}.safetensors"
