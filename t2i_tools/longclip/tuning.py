"""Fine-tuning of a stretched CLIP on pictures with long and short captions (Long-CLIP, arXiv 2403.15378)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i_tools.errors import InputError
from t2i_tools.longclip.formula import KEEP
from t2i_tools.longclip.matching import SMOOTHING, contrast, primary_component_loss
from t2i_tools.longclip.stretch import STOCK, embeddings, positions

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer

Loss = Literal["pcm", "plain"]
LOSSES: tuple[Loss, ...] = get_args(Loss)


class Objective(nn.Module):
    """The loss of a batch of pictures (B, 3, H, W), as the image tower takes them, and their captions.

    loss: "pcm" matches long and short captions (primary component matching), "plain" the long ones alone. anchor:
    weight of how far the short captions have moved from what `before`, the CLIP as it was, makes of them: the mean
    square over their hidden states plus the mean squared distance of their unit vectors. Not in the paper: a denoiser
    reads hidden states, and was trained on what they were.
    """

    def __init__(
        self,
        clip: CLIPModel,
        tokenizer: CLIPTokenizer,
        loss: Loss = "pcm",
        *,
        anchor: float = 0.0,
        before: CLIPModel | None = None,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise InputError(f"unknown loss {loss!r}: choose {' or '.join(LOSSES)}")
        self.clip, self.tokenizer, self.loss, self.anchor = clip, tokenizer, loss, anchor
        self.before = before if anchor else None

    def forward(self, pixels: Tensor, long: Sequence[str], short: Sequence[str]) -> Tensor:
        images = F.normalize(self.clip.get_image_features(pixels).pooler_output, dim=-1)
        scale = self.clip.logit_scale.exp().clamp(max=100)
        if self.loss == "plain":
            total = contrast(images, self._read(long), scale, SMOOTHING)
        else:
            total = primary_component_loss(images, self._read(long), self._read(short), scale)
        return total + self.anchor * self._moved(short[: len(short) // 4]) if self.anchor else total

    def _read(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (B, d). No mask is needed, as the end of a text sees nothing of the filling."""
        ids = self._ids(texts, padding="longest", max_length=positions(self.clip))
        return F.normalize(self.clip.get_text_features(ids).pooler_output, dim=-1)

    def _moved(self, texts: Sequence[str]) -> Tensor:
        """Read as a pipeline has them read, filling and all."""
        ids = self._ids(texts, padding="max_length", max_length=STOCK)
        assert self.before is not None  # an anchor is asked for
        with torch.no_grad():
            before = self.before.get_text_features(ids)
        now = self.clip.get_text_features(ids)
        vector, vector_before = (F.normalize(read.pooler_output, dim=-1) for read in (now, before))
        return F.mse_loss(now.last_hidden_state, before.last_hidden_state) + (
            F.mse_loss(vector, vector_before, reduction="sum") / len(texts)
        )

    def _ids(self, texts: Sequence[str], **settings: Any) -> Tensor:
        return self.tokenizer(list(texts), truncation=True, return_tensors="pt", **settings).input_ids.to(
            self.clip.device
        )


class FrozenRows:
    """The first rows of a CLIP's position table, as it was before the tuning."""

    def __init__(self, clip: CLIPModel, keep: int = KEEP) -> None:
        self.table = embeddings(clip).position_embedding.weight
        self.rows = self.table.detach()[:keep].clone()

    @torch.no_grad()
    def restore(self) -> None:
        """To be called after every step."""
        self.table[: len(self.rows)] = self.rows.to(self.table)


def first_sentence(caption: str) -> str:
    """The official short caption: what stands before the first full stop."""
    head, stop, _ = caption.partition(". ")
    return head + stop.strip()
