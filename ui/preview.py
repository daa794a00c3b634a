"""A look at an image while it is made."""

import base64
import io
import time
from typing import TYPE_CHECKING

import torch
from PIL import Image

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SHARE = 0.15
SIDE = 384


class Preview:
    """Decodes latents as often as a fixed share of the time allows: each step where decoding is cheap."""

    def __init__(self, pipe: "DiffusionPipeline"):
        self.pipe = pipe
        self._start = time.perf_counter()
        self._spent = 0.0

    def __call__(self, latents: torch.Tensor) -> Image.Image | None:
        """The first image of (B, C, h, w) latents; None where they are packed or there is no time."""
        now = time.perf_counter()
        if latents.ndim != 4 or self._spent > SHARE * (now - self._start):
            return None
        image = decode(self.pipe, latents[:1])
        self._spent += time.perf_counter() - now
        return image


@torch.no_grad()
def decode(pipe: "DiffusionPipeline", latents: torch.Tensor) -> Image.Image:
    """The picture that the VAE sees in latents (1, C, h, w), which may still be noisy."""
    config = pipe.vae.config
    latents = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0)
    decoded = pipe.vae.decode(latents.to(pipe.vae.dtype), return_dict=False)[0]
    return pipe.image_processor.postprocess(decoded)[0]


def data_url(image: Image.Image) -> str:
    """The image as a URL that holds it, at most 384 pixels a side."""
    small, buffer = image.copy(), io.BytesIO()
    small.thumbnail((SIDE, SIDE))
    small.save(buffer, format="WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
