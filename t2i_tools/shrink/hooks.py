"""Small maps between a downsampler of a UNet and the upsampler that mirrors it."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_map_only

from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.handle import Handle
from t2i_tools.models.anatomy import denoiser
from t2i_tools.models.calls import DenoiserCall, Grid, parameters, read_call
from t2i_tools.models.compiled import unwrapped
from t2i_tools.models.small_maps import SmallMaps, announce
from t2i_tools.shrink.formula import check_level, distinct, halved, place, small_side, small_steps

AXES = ("height", "width")
# Arguments of a UNet that are added to its maps: of ControlNets, and of T2I-Adapters.
ADDED = ("down_block_additional_residuals", "mid_block_additional_residual", "down_intrablock_additional_residuals")


def sampler_pairs(model: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Each downsampler of a UNet, in their order, with the upsampler that mirrors it. Raises UnsupportedModelError."""
    down, up = (
        [block_samplers[-1] for block in getattr(model, blocks, ()) if (block_samplers := getattr(block, kind, None))]
        for blocks, kind in (("down_blocks", "downsamplers"), ("up_blocks", "upsamplers"))
    )
    if not down or len(down) != len(up):
        raise UnsupportedModelError(
            f"this {type(model).__name__} has {len(down)} downsamplers and {len(up)} upsamplers: deep shrink takes "
            "them in pairs"
        )
    return list(zip(down, reversed(up), strict=True))


class Schedule:
    """The timesteps of the image that a pipeline makes."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = weakref.ref(pipe)  # its scheduler may be exchanged
        self._scheduler = pipe.scheduler  # of a copy of the pipeline, or when it is gone
        self._source: Any = None
        self._timesteps: list[float] = []

    def timesteps(self, model: nn.Module) -> list[float]:
        """Without those that are there twice; a new list for each image. model: the denoiser that is called."""
        pipe = self._pipe()
        if pipe is not None and unwrapped(denoiser(pipe)) is model:  # a copy's is another, as is the copied scheduler
            self._scheduler = pipe.scheduler
        source = self._scheduler.timesteps
        if source is not self._source:
            self._source, self._timesteps = source, distinct(source.tolist())
        return self._timesteps


class Shrinking:
    """Shrinks what a downsampler gives in the first steps, and enlarges what its upsampler makes of it."""

    def __init__(self, model: nn.Module, level: int, share: float, native: Grid, pipe: Any) -> None:
        pairs = sampler_pairs(model)
        check_level(level, len(pairs))
        self.down, self.up = pairs[level - 1]
        self.level, self.share, self.native, self.deeper = level, share, native, len(pairs) - level
        self.schedule = Schedule(pipe)
        self.ended = False
        self.size: Grid | None = None  # of the small map in this call
        self._skip: Any = None  # the size of the map that meets the enlarged one
        self._grid: Grid | None = None
        self._timesteps: list[float] = []
        self._small: set[int] = set()  # places of this image's steps

    def attach(self, handle: Handle, model: nn.Module) -> None:
        """Put the hooks on, until the handle ends."""
        handle.on_remove(self.end)
        handle.on_remove(announce(model, self.small_maps))
        handle.on_remove(model.register_forward_pre_hook(self.before_call, with_kwargs=True).remove)
        handle.on_remove(self.down.register_forward_hook(self.shrink).remove)
        handle.on_remove(self.up.register_forward_hook(self.enlarge).remove)
        if "output_size" in parameters(type(self.up).forward):
            handle.on_remove(self.up.register_forward_pre_hook(self.double, with_kwargs=True).remove)

    def small_maps(self, call: DenoiserCall) -> SmallMaps | None:
        """Which maps of a call are small, and how small; None where none is."""
        if self.ended:
            return None
        timesteps = self.schedule.timesteps(call.model)
        if place(call.time, timesteps) >= small_steps(self.share, len(timesteps)):
            return None
        sides = zip(call.grid, self.native, strict=True)
        rows, columns = (small_side(side, native, self.level, self.deeper) for side, native in sides)
        if (rows, columns) == self.plain_size(call.grid):
            return None
        return SmallMaps(self.level, (rows, columns))

    def plain_size(self, grid: Grid) -> Grid:
        """The size of the map without the plugin."""
        return halved(grid[0], self.level), halved(grid[1], self.level)

    @torch.compiler.disable  # or it would be compiled anew for each timestep
    def before_call(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        """Root pre-hook: set the size of the small map, and shrink what is added to small maps."""
        call = read_call(model, args, kwargs)
        small = self.small_maps(call)
        self.size = None if small is None else small.size
        self._note(call)
        if self.size is None:
            return None
        _check_masks(call.arguments, self.plain_size(call.grid), self.size)
        added = {name: value for name in ADDED if (value := call.arguments.get(name)) is not None}
        if not added:
            return None
        fit = partial(_fit, sizes=self._sizes(call.grid))
        return (), {**call.arguments, **tree_map_only(torch.Tensor, fit, added)}

    def shrink(self, module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        """Forward hook of the downsampler. output: (B, C, rows, columns)."""
        if self.size is None:
            return output
        self._skip = args[0].shape[-2:]
        return resized(output, self.size)

    def double(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        """Pre-hook of the upsampler: of a small map it makes one of twice the size, whatever the UNet asks for."""
        return None if self.size is None else (args[:1], {})

    def enlarge(self, module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        """Forward hook of the upsampler: up to the size of the map that is joined to it."""
        return output if self.size is None else resized(output, self._skip)

    def end(self) -> None:
        """What was compiled with the hooks changes nothing from now on."""
        self.ended, self.size = True, None

    def rows(self) -> list[dict[str, Any]]:
        """Per axis: the deep map's side, the small one's, and in how many steps of the last image it was there."""
        steps = {"steps": len(self._small), "of": len(self._timesteps)}
        if self._grid is None:
            return [{"axis": axis, "side": None, "small": None, **steps, "acted": False} for axis in AXES]
        sides = zip(AXES, self._grid, self.native, self.plain_size(self._grid), strict=True)
        rows = []
        for axis, grid, native, side in sides:
            small = small_side(grid, native, self.level, self.deeper)
            acted = small < side and bool(self._small)
            rows.append({"axis": axis, "side": side, "small": small, **steps, "acted": acted})
        return rows

    def _note(self, call: DenoiserCall) -> None:
        timesteps = self.schedule.timesteps(call.model)
        if timesteps is not self._timesteps:
            self._timesteps, self._small = timesteps, set()
        self._grid = call.grid
        if self.size is not None:
            self._small.add(place(call.time, timesteps))

    def _sizes(self, grid: Grid) -> dict[Grid, Grid]:
        """The size of each deep map without the plugin -> with it."""
        plain, small = self.plain_size(grid), self.size or self.plain_size(grid)
        depths = range(self.deeper + 1)
        return {
            (halved(plain[0], depth), halved(plain[1], depth)): (halved(small[0], depth), halved(small[1], depth))
            for depth in depths
        }


def resized(maps: torch.Tensor, size: Any) -> torch.Tensor:
    """Maps (B, C, rows, columns) at another size; the same tensor where they have it."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, tuple(size), mode="bicubic", align_corners=False)


def _fit(maps: torch.Tensor, sizes: Mapping[Grid, Grid]) -> torch.Tensor:
    """What is added to maps that are small now, as small as they are."""
    rows, columns = maps.shape[-2:]
    return resized(maps, sizes.get((rows, columns), (rows, columns)))


def _check_masks(arguments: Mapping[str, Any], plain: Grid, small: Grid) -> None:
    """Raise InputError where masks of an IP-Adapter, which follow the image's shape, meet maps of another shape."""
    masks = (arguments.get("cross_attention_kwargs") or {}).get("ip_adapter_masks")
    if masks is not None and plain[0] * small[1] != plain[1] * small[0]:
        raise InputError(
            "an IP-Adapter's masks have the image's aspect ratio, and deep shrink gives deep feature maps the native "
            "one: make an image of the native aspect ratio, or use the masks without deep shrink"
        )
