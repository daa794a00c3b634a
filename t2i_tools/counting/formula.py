"""What a count token minimises (Zafar et al. 2024, arXiv 2408.11721), as pure functions.

    loss = |potential / scale - n| + weight (1 - cos(image, text)),    scale = potential / detections

The potential is differentiable and only proportional to a count; the scale, held constant in the gradient, makes the
value of the first term the detector's own error while its gradient stays the potential's.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def dynamic_scale(potential: torch.Tensor, detections: Sequence[int], last: float) -> torch.Tensor:
    """(B,): potential per detected object, without gradient; `last` where nothing, or nothing finite, is seen.

    potential: (B,). detections: B counts. last: the latest good scale, > 0.
    """
    found = torch.tensor(detections, dtype=potential.dtype, device=potential.device)
    scale = potential.detach() / found.clamp(min=1)
    good = (found > 0) & torch.isfinite(scale) & (scale > 0)
    return torch.where(good, scale, torch.full_like(scale, last))


def count_loss(potential: torch.Tensor, scale: torch.Tensor, n: int) -> torch.Tensor:
    """(B,): |potential / scale - n|; without a gradient where that is 0 but for rounding."""
    gap = potential / scale - n
    return torch.where(gap.detach().abs() < 1e-3, 0.0, gap.abs())


def focus(images: torch.Tensor, boxes: Sequence[torch.Tensor], n: int) -> torch.Tensor:
    """(B, 1, H, W), 1 where an object is to go or to come and the images (B, 3, H, W) keep their gradient, else 0.

    Of more than n objects the least sure ones are to go: their boxes have the gradient. Of fewer, new ones are to come
    where there is none: all but the boxes. Of n, or where that leaves nothing, all of the image. boxes: per image
    (k, 4) xyxy in pixels, surest first.
    """
    masks = torch.ones_like(images[:, :1])
    for mask, found in zip(masks[:, 0], boxes, strict=True):
        if len(found) == n:
            continue
        mask.fill_(float(len(found) < n))
        for left, top, right, bottom in found[n:] if len(found) > n else found:
            mask[int(top) : int(bottom) + 1, int(left) : int(right) + 1] = float(len(found) > n)
        if not mask.any():  # boxes that leave nothing out say nothing about where
            mask.fill_(1.0)
    return masks


def clip_loss(image_embeds: torch.Tensor, text_embeds: torch.Tensor) -> torch.Tensor:
    """(B,): 1 - cos of each image's embedding (B, d) with the text's (1 or B, d)."""
    return 1 - F.cosine_similarity(image_embeds, text_embeds, dim=-1)


def clip_gradient(tensors: Sequence[torch.Tensor], limit: float) -> float:
    """Shorten the common gradient to at most `limit` in place; returns its length before, inf or nan as it is."""
    gradients = [tensor.grad for tensor in tensors if tensor.grad is not None]
    length = float(torch.linalg.vector_norm(torch.stack([gradient.float().norm() for gradient in gradients])))
    if length > limit:
        for gradient in gradients:
            gradient.mul_(limit / length)
    return length


def root_mean_square(values: torch.Tensor) -> float:
    """sqrt(mean(x^2)): what a step is measured in, so that one learning rate serves every encoder."""
    return float(values.detach().float().square().mean().sqrt())
