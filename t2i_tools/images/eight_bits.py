"""From numbers in [0, 1] to the bytes of a file: the one place where images are rounded, and NaN would become black."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from t2i_tools.errors import ModelError


def eight_bits(images: torch.Tensor) -> torch.Tensor:
    """Round images to the bytes that a file will hold.

    Args:
        images: (B, C, H, W) in [0, 1].

    Returns:
        The same shape in uint8, without a graph.

    Raises:
        ModelError: An image has numbers that are not finite.
    """
    images = images.detach()
    _refuse(~torch.isfinite(images).flatten(1).all(1))
    return (images * 255).round().byte()


def to_images(images: Any) -> list[Image.Image]:
    """Turn what a pipeline gives into PIL images.

    Args:
        images: PIL images, or (B, H, W, C) floats in [0, 1] as diffusers' `output_type="np"` has them.

    Returns:
        The images, to the bit those of `output_type="pil"`.

    Raises:
        ModelError: An image has numbers that are not finite.
    """
    if isinstance(images[0], Image.Image):
        return list(images)
    arrays = np.stack(images)
    _refuse(~np.isfinite(arrays).reshape(len(arrays), -1).all(1))
    arrays = (arrays * 255).round().astype(np.uint8)
    return [Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array) for array in arrays]


def _refuse(bad: torch.Tensor | np.ndarray) -> None:
    places = [place for place, is_bad in enumerate(bad.tolist(), 1) if is_bad]
    if places:
        which = f"image {', '.join(map(str, places))} of {len(bad)}" if len(bad) > 1 else "the image"
        raise ModelError(
            f"{which} came out as NaN: the model or its VAE overflows in this dtype; try --dtype float32, "
            "or bfloat16 in place of float16"
        )
