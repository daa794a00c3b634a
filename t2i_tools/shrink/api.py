"""Deep shrink of a pipeline's UNet."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.handle import Handle
from t2i_tools.models.anatomy import denoiser
from t2i_tools.models.compiled import forget_compiled, unwrapped
from t2i_tools.models.families import FAMILIES, find_family
from t2i_tools.models.native import native_grid
from t2i_tools.shrink.formula import LEVEL, SHARE, check_share
from t2i_tools.shrink.hooks import Shrinking

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

PLUGIN = "deep shrink"


def deep_shrink(
    pipe: DiffusionPipeline,
    *,
    native: tuple[int, int] | None = None,
    level: int = LEVEL,
    share: float = SHARE,
) -> Handle:
    """Shrink the deep maps of a UNet to their native size in the first steps, so that large images repeat less.

    In the first part of the steps it is decided how many objects are where. There, what the downsampler `level` gives
    is made as small as it is at the native size, per axis, and what the upsampler that mirrors it gives is enlarged
    again; later steps see everything at its own size. Along an axis that is no larger than the native one nothing is
    shrunk: at the native size nothing changes, to the bit. The steps with small maps cost less. What ControlNets and
    T2I-Adapters add to small maps is shrunk like them. Other plugins, LoRAs, offloading, img2img and inpainting (which
    begin at a later step) and compilation may come before or after it. `two_pass` takes the first steps near the native
    size already: use one of the two.

    Args:
        pipe: A pipeline with a UNet, whose scheduler says which steps come first.
        native: The size it was trained at, (height, width) in pixels, where the configuration does not say.
        level: After which of the UNet's downsamplers, from 1; 1 by default. Deeper ones act less.
        share: The share of the scheduler's steps with small maps, from 0 (none) to 1 (all); 0.5 by default. A
            step counts where it begins.

    Returns:
        A handle, whose `report()` gives, per axis, the side of the deep map, that of the small one and in how many of
        the last image's steps it was there.

    Raises:
        InputError: The native size is not known, an argument is out of range, or this is no pipeline.
        UnsupportedModelError: The denoiser is no UNet.

    Source: "Deep Shrink" of kohya-ss (2023), known from web UIs; HiDiffusion (Zhang et al., ECCV 2024, arXiv
    2311.17528) is a relative. Measured on the bundled model only.

    Example:
        >>> with t2i.deep_shrink(pipe) as handle:
        ...     image = pipe("two cats", height=192, width=192).images[0]
        >>> handle.report()[0]["acted"]
        True
    """
    model = unwrapped(denoiser(pipe))
    check_unet(model)
    if isinstance(pipe, nn.Module) or not hasattr(pipe, "scheduler"):
        raise InputError("deep_shrink takes a pipeline: its scheduler says which steps come first")
    check_share(share)
    shrinking = Shrinking(model, level, share, native_grid(pipe, native), pipe)
    forget_compiled(denoiser(pipe))
    handle = Handle(model, PLUGIN, partial(report, shrinking))
    shrinking.attach(handle, model)
    return handle


def check_unet(model: nn.Module) -> None:
    """Raise UnsupportedModelError unless deep shrink acts on a denoiser."""
    try:
        if find_family(model).supports("shrink"):
            return
    except UnsupportedModelError:
        pass
    able = [family for family in FAMILIES if family.supports("shrink")]
    kinds = ", ".join(dict.fromkeys(family.denoiser for family in able))
    names = ", ".join(family.name for family in able)
    raise UnsupportedModelError(f"{type(model).__name__} has no deep maps: deep shrink works on {kinds} ({names})")


def report(shrinking: Shrinking) -> Sequence[dict[str, Any]]:
    """One row per axis; warns when nothing was shrunk."""
    rows = shrinking.rows()
    if not any(row["acted"] for row in rows):
        warnings.warn(f"deep shrink did nothing: {_why(rows)}", stacklevel=3)
    return rows


def _why(rows: Sequence[dict[str, Any]]) -> str:
    if rows[0]["side"] is None:
        return "the model has not been called since"
    if all(row["side"] == row["small"] for row in rows):
        return "no side is larger than the native size"
    return "no step of the last image is among the first ones that it acts in"
