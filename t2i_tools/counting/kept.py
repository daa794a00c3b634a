"""How much of the plain image a search has kept: its objects that are still in their places."""

from __future__ import annotations

from collections.abc import Mapping

import torch

LEAST_OVERLAP = 0.5  # intersection over union of an object that stayed


def kept_share(before: Mapping[str, torch.Tensor] | None, after: Mapping[str, torch.Tensor]) -> float | None:
    """Return the share of objects whose box has a counterpart of the same class, with an overlap of half or more.

    Args:
        before: class -> boxes (k, 4) xyxy of the plain image; None where there is none.
        after: the same of the result.

    Returns:
        A share in [0, 1]; None where there is no plain image, or it has no objects.
    """
    if before is None or not (number := sum(map(len, before.values()))):
        return None
    return sum(matches(boxes, after[label]) for label, boxes in before.items()) / number


def matches(before: torch.Tensor, after: torch.Tensor) -> int:
    """Count the pairs of boxes (k, 4) and (m, 4) that overlap, the best pair first, each box in one pair only."""
    if not len(before) or not len(after):
        return 0
    overlaps, pairs = overlap(before, after), 0
    while (best := int(overlaps.argmax())) >= 0 and float(overlaps.flatten()[best]) >= LEAST_OVERLAP:
        row, column = divmod(best, overlaps.shape[1])
        overlaps[row], overlaps[:, column] = 0.0, 0.0
        pairs += 1
    return pairs


def overlap(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Return the intersection over union (k, m) of boxes (k, 4) and (m, 4) xyxy."""
    before, after = before.float().cpu(), after.float().cpu()
    corner = torch.maximum(before[:, None, :2], after[None, :, :2])
    sides = (torch.minimum(before[:, None, 2:], after[None, :, 2:]) - corner).clamp(min=0)
    shared = sides.prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (before, after)]
    return shared / (areas[0][:, None] + areas[1][None] - shared).clamp(min=1e-9)
