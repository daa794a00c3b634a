"""The size that a denoiser was trained at, in its own tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from t2i_tools.errors import InputError
from t2i_tools.models.anatomy import denoiser, native_size, token_pixels
from t2i_tools.models.calls import Grid, token_side
from t2i_tools.models.compiled import unwrapped

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def native_grid(pipe: DiffusionPipeline | nn.Module, native: tuple[int, int] | None) -> Grid:
    """The image tokens in training, (rows, columns). Raises InputError."""
    model = unwrapped(denoiser(pipe))
    native = native or native_size(pipe)
    if native is None:
        raise InputError(
            f"{type(model).__name__} does not say at which size it was trained: pass native=(height, width)"
        )
    side = token_side(model) if isinstance(pipe, nn.Module) else token_pixels(pipe)
    match native:
        case [int(height), int(width)] if min(height, width) >= side:
            return height // side, width // side
    raise InputError(f"native={native!r} is not a size: pass (height, width), each at least {side}")
