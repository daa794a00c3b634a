"""CLIP as a term of the loss, which keeps the picture to its prompt while the count is pushed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from t2i_tools.counting.loss import clip_loss

if TYPE_CHECKING:
    from transformers import CLIPModel, PreTrainedTokenizerBase


class ClipTerm:
    """1 - cos(image, text) of a CLIP, with a gradient in the image. It should not be the CLIP that evaluates.

    mean, std: of the pixels in [0, 1] that the model was trained on; OpenAI's by default.
    """

    def __init__(
        self,
        model: CLIPModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        from t2i_tools.metrics.clip import MEAN, STD

        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        self.mean, self.std = mean or MEAN, std or STD
        self._texts: dict[str, torch.Tensor] = {}

    def __call__(self, images: torch.Tensor, text: str) -> torch.Tensor:
        """(B,) on the images' device, of images (B, 3, H, W) in [0, 1]; squashed to the model's square."""
        side = self.model.config.vision_config.image_size
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        pixels = F.interpolate(images, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)
        pixels = ((pixels - mean) / std).to(self.model.device, self.model.dtype)
        embeds = _pooled(self.model.get_image_features(pixel_values=pixels)).float()
        return clip_loss(embeds, self._text(text)).to(images.device)

    def _text(self, text: str) -> torch.Tensor:
        if text not in self._texts:
            length = self.model.config.text_config.max_position_embeddings
            inputs = self.tokenizer(
                text, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
            ).to(self.model.device)
            with torch.no_grad():
                features = self.model.get_text_features(
                    input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
                )
            self._texts[text] = _pooled(features).float()
        return self._texts[text]


def _pooled(features) -> torch.Tensor:
    return features if isinstance(features, torch.Tensor) else features.pooler_output
