"""Where a plugin makes the maps of a UNet smaller than its latents say, for all that count an attention's tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from t2i_tools.models.calls import DenoiserCall

KEY = "t2i_small_maps"


@dataclass(frozen=True)
class SmallMaps:
    """The maps of one call that were halved `level` times or more; the first of them has this size, (rows, columns)."""

    level: int
    size: tuple[int, int]


def announce(model: nn.Module, read: Callable[[Any], SmallMaps | None]) -> Callable[[], object]:
    """Announce which maps are small in each call of a denoiser. Returns a function that withdraws this.

    read: called with the `DenoiserCall`; it may not depend on what a hook sets, for hooks ask it in any order.
    """
    vars(model)[KEY] = read
    return partial(_take_back, model)  # of the model, which a deepcopy exchanges for its own


def small_maps(call: DenoiserCall) -> SmallMaps | None:
    """What a plugin says of this call; None where all maps are as large as the latents say."""
    read = vars(call.model).get(KEY)
    return None if read is None else read(call)


def _take_back(model: nn.Module) -> None:
    vars(model).pop(KEY, None)
