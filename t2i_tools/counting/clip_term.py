"""CLIP as a term of the loss, which keeps the image to its prompt while the count is pushed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from t2i_tools.counting.formula import clip_loss

if TYPE_CHECKING:
    from t2i_tools.metrics import ClipScorer


class ClipTerm:
    """The CLIP term of a search's loss is 1 - cos(image, text), with a gradient in the image.

    It keeps the image to its prompt while the count is pushed. It should not be the CLIP that evaluates.

    Args:
        clip: The CLIP and its preparation of images; its weights are frozen.

    Source: Zafar et al. 2024, arXiv 2408.11721.

    Example:
        >>> options = t2i.CountOptions(method="token", clip=t2i.ClipTerm(t2i.load_bundled_clip()))
    """

    def __init__(self, clip: ClipScorer) -> None:
        clip.model.requires_grad_(False)
        self.clip = clip
        self._texts: dict[str, torch.Tensor] = {}

    def __call__(self, images: torch.Tensor, text: str) -> torch.Tensor:
        """(B,) on the images' device, of images (B, 3, H, W) in [0, 1]."""
        embeds = self.clip.image_features(self.clip.prepare(images)).float()
        return clip_loss(embeds, self._text(text)).to(images.device)

    def _text(self, text: str) -> torch.Tensor:
        """(1, d) on the model's device."""
        if text not in self._texts:
            embeds = torch.from_numpy(self.clip.embed_texts([text])[0])
            self._texts[text] = embeds.to(self.clip.model.device, torch.float32)
        return self._texts[text]
