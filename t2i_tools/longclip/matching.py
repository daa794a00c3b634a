"""Primary component matching, the loss of Long-CLIP (Zhang et al., ECCV 2024, arXiv 2403.15378, section 3.3)."""

import torch
import torch.nn.functional as F

COMPONENTS, SMOOTHING = 32, 0.1  # the official code's


def primary_component_loss(
    images: torch.Tensor,
    long_texts: torch.Tensor,
    short_texts: torch.Tensor,
    scale: torch.Tensor | float,
    *,
    components: int = COMPONENTS,
    smoothing: float = SMOOTHING,
) -> torch.Tensor:
    """contrast(I, T_long) + contrast(primary(I), T_short), of unit vectors (B, d): scale is CLIP's exp(logit_scale).

    The whole image is matched with its long caption, what stands out in it with the short one. A batch of fewer than
    `components` + 2 images has no lesser components to leave out.
    """
    coarse = primary_components(images, components)
    return contrast(images, long_texts, scale, smoothing) + contrast(coarse, short_texts, scale, smoothing)


def primary_components(features: torch.Tensor, components: int = COMPONENTS) -> torch.Tensor:
    """(B, d) without what lies outside the first principal components of the batch; not of unit length any more.

    The components count as constants in the backward pass: their own gradient explodes where singular values meet.
    """
    mean = features.mean(0)
    centred = features - mean
    with torch.no_grad():
        basis = torch.linalg.svd(centred.float(), full_matrices=False).Vh[:components].to(features.dtype)  # (k, d)
    return centred @ basis.T @ basis + mean


def contrast(
    images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor | float, smoothing: float = 0.0
) -> torch.Tensor:
    """CLIP's symmetric loss: cross-entropy of row i for column i, mean over both directions."""
    logits = scale * images @ texts.T
    target = torch.arange(len(logits), device=logits.device)
    by_image, by_text = (F.cross_entropy(rows, target, label_smoothing=smoothing) for rows in (logits, logits.T))
    return (by_image + by_text) / 2
