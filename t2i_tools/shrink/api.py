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

    The first steps decide how many objects there are and where. In these steps the output of downsampler `level` is
    shrunk, per axis, to its size at the native image size, and the output of the matching upsampler is enlarged again;
    later steps see every feature map at full size. An axis no larger than the native one is left alone: at the native
    size the image is unchanged, bit for bit. Steps with shrunk maps cost less. What ControlNets and T2I-Adapters add to
    shrunk maps is shrunk with them. Other plugins, LoRAs, offloading, img2img and inpainting (which begin at a later
    step) and compilation may come before or after it. `two_pass` already draws its first steps near the native size:
    use one of the two.

    Args:
        pipe: A pipeline with a UNet, whose scheduler says which steps come first.
        native: The size that the model was trained at, (height, width) in pixels; by default read from its
            configuration.
        level: The downsampler whose output is shrunk, counted from 1; 1 by default. Deeper ones have less effect.
        share: The share of the scheduler's steps, starting with the first, in which maps are shrunk, from 0 (none) to
            1 (all); 0.5 by default. Rounded up to whole steps.

    Returns:
        A handle, whose `report()` has one row per axis: `side` and `small`, the side of the deep feature map without
        and with the plugin, in positions of the map; `steps`, in how many steps of the last image any axis was shrunk;
        `of`, the number of steps in the scheduler's whole schedule; `acted`, whether this axis was shrunk.

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
    raise UnsupportedModelError(f"deep shrink works on {kinds} ({names}), not on {type(model).__name__}")


def report(shrinking: Shrinking) -> Sequence[dict[str, Any]]:
    """One row per axis; warns when nothing was shrunk."""
    rows = shrinking.rows()
    if not any(row["acted"] for row in rows):
        warnings.warn(f"deep shrink did nothing: {_why(rows)}", stacklevel=3)
    return rows


def _why(rows: Sequence[dict[str, Any]]) -> str:
    if rows[0]["side"] is None:
        return "the pipeline has not been called since it was applied"
    if all(row["side"] == row["small"] for row in rows):
        return "no side is larger than the native size"
    return "none of the last image's steps is one of those in which it acts"
