"""How well a CLIP finds the caption of a picture and the picture of a caption, and how much of a caption it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer


@torch.inference_mode()
def read_texts(
    clip: CLIPModel, tokenizer: CLIPTokenizer, texts: Sequence[str], *, keep: int | None = None, batch_size: int = 50
) -> np.ndarray:
    """Unit vectors (n, d) of texts that are cut to what the model reads, or to `keep` tokens, begin and end included.

    A text that is cut keeps its end token, where CLIP reads the whole off.
    """
    longest = min(keep or 10**9, clip.config.text_config.max_position_embeddings)
    rows = []
    for start in range(0, len(texts), batch_size):
        ids = tokenizer(list(texts[start : start + batch_size]), verbose=False)["input_ids"]
        ids = [row if len(row) <= longest else row[: longest - 1] + row[-1:] for row in ids]
        read = tokenizer.pad({"input_ids": ids}, return_tensors="pt").input_ids.to(clip.device)
        rows.append(F.normalize(clip.get_text_features(read).pooler_output.double(), dim=-1).cpu())
    return torch.cat(rows).numpy()


@torch.inference_mode()
def see_pictures(clip: CLIPModel, pixels: torch.Tensor, batch_size: int = 50) -> np.ndarray:
    """Unit vectors (n, d) of pictures (n, 3, H, W), as the model takes them."""
    parts = [clip.get_image_features(part.to(clip.device)).pooler_output.double() for part in pixels.split(batch_size)]
    return F.normalize(torch.cat(parts), dim=-1).cpu().numpy()


def first_hits(queries: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """(n,) bool: whether answer i is the nearest to query i of all; R@1 is the mean. A tie is no hit."""
    similar = queries @ answers.T
    own = similar.diagonal().copy()
    np.fill_diagonal(similar, -np.inf)
    return own > similar.max(axis=1)


def retrieval(pictures: np.ndarray, texts: np.ndarray) -> dict[str, np.ndarray]:
    """Hits in both directions: "I2T" finds the caption of a picture, "T2I" the picture of a caption."""
    return {"I2T": first_hits(pictures, texts), "T2I": first_hits(texts, pictures)}


def compared(hits: np.ndarray, baseline: np.ndarray) -> dict[str, Any]:
    """A share with its interval, its difference from the baseline's on the same items, and McNemar's p."""
    from t2i_tools.metrics import mcnemar, paired_bootstrap, wilson

    share = wilson(int(hits.sum()), len(hits))
    told = {"value": share.estimate, "low": share.low, "high": share.high, "n": share.n}
    if np.array_equal(hits, baseline):
        return told | {"difference": [0.0, 0.0, 0.0], "p": 1.0}
    difference = paired_bootstrap(hits.astype(float), baseline.astype(float))
    return told | {
        "difference": [difference.estimate, difference.low, difference.high],
        "p": mcnemar(hits, baseline).p,
    }
