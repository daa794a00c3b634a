"""What a `HeatmapNet` learns: targets and loss of "Objects as Points" (Zhou et al. 2019), as pure functions."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from t2i_tools.detectors.heatmap import STRIDE, Maps


class Targets(NamedTuple):
    """What the maps of a batch with K objects shall be.

    heat: (B, C, h, w) in [0, 1]. picture, row, column: (K,), each object's cell. size, offset: (K, 2) as in `Maps`.
    """

    heat: torch.Tensor
    picture: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    size: torch.Tensor
    offset: torch.Tensor


def build_targets(
    boxes: Sequence[torch.Tensor], labels: Sequence[torch.Tensor], classes: int, size: tuple[int, int]
) -> Targets:
    """Draws a bell of an eighth of the object's width and height, at least half a cell, at each centre.

    boxes: per picture (k, 4) xyxy in pixels. labels: per picture (k,) integers. size: the pictures' (height, width).
    """
    height, width = size[0] // STRIDE, size[1] // STRIDE
    flat, label = torch.cat(list(boxes)).float() / STRIDE, torch.cat(list(labels)).long()
    picture = torch.repeat_interleave(torch.tensor([len(b) for b in boxes], device=flat.device))
    centre, side = (flat[:, :2] + flat[:, 2:]) / 2, flat[:, 2:] - flat[:, :2]
    column = centre[:, 0].long().clamp(0, width - 1)
    row = centre[:, 1].long().clamp(0, height - 1)
    sigma = (side / 8).clamp(min=0.5)
    across = (torch.arange(width, device=flat.device) - column[:, None]) / sigma[:, :1]  # (K, w)
    down = (torch.arange(height, device=flat.device) - row[:, None]) / sigma[:, 1:]  # (K, h)
    bells = torch.exp(-(down[:, :, None] ** 2 + across[:, None] ** 2) / 2)  # (K, h, w)
    heat = bells.new_zeros(len(boxes) * classes, height, width)
    plane = (picture * classes + label)[:, None, None].expand_as(bells)
    heat.scatter_reduce_(0, plane, bells, "amax")
    offset = centre - torch.stack([column, row], 1)
    return Targets(heat.unflatten(0, (len(boxes), classes)), picture, row, column, side.clamp(min=0.25).log(), offset)


def heatmap_loss(maps: Maps, targets: Targets) -> torch.Tensor:
    """Penalty-reduced focal loss of the heat + L1 of size and of offset at the centres, per object; a scalar."""
    objects = max(len(targets.picture), 1)
    size = maps.size[targets.picture, :, targets.row, targets.column]
    offset = maps.offset[targets.picture, :, targets.row, targets.column]
    distance = F.l1_loss(size, targets.size, reduction="sum") + F.l1_loss(offset, targets.offset, reduction="sum")
    return (focal_loss(maps.heat, targets.heat) + distance / 2) / objects


def focal_loss(logits: torch.Tensor, heat: torch.Tensor, alpha: float = 2, beta: float = 4) -> torch.Tensor:
    """Sum of -(1-p)^α log p at the centres and -(1-y)^β p^α log(1-p) elsewhere (their equation 1)."""
    p = logits.sigmoid()
    centre = (1 - p) ** alpha * F.logsigmoid(logits)
    elsewhere = (1 - heat) ** beta * p**alpha * F.logsigmoid(-logits)
    return -torch.where(heat == 1, centre, elsewhere).sum()
