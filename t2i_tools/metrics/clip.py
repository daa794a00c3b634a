"""CLIP score, 100 cos(image, text) (Hessel et al. 2021), with the gap that gives it a scale

    gap = mean of score(image, its text) - mean of score(image, another's text),

each text's partner being fixed by a derangement. A margin between methods is read as a share of the gap: what fraction
of "right text instead of wrong text" it is worth. The scoring CLIP takes no part in what it scores.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from t2i_tools.errors import InputError
from t2i_tools.metrics.checks import same_length

if TYPE_CHECKING:
    from transformers import CLIPModel, PreTrainedTokenizerBase

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's
Fit = Literal["crop", "squash"]


@dataclass(frozen=True)
class ClipScores:
    """matched, mismatched: (n,) float64, 100 cos of each image with its text and with the partner's.

    cut: (n,) bool, whether the text was longer than the model reads.
    """

    matched: np.ndarray
    mismatched: np.ndarray
    cut: np.ndarray

    @property
    def score(self) -> float:
        """The mean CLIP score."""
        return float(self.matched.mean())

    @property
    def gap(self) -> float:
        """How much the right text scores above a wrong one."""
        return float((self.matched - self.mismatched).mean())

    def share(self, margin: float) -> float:
        """A difference between CLIP scores as a share of the gap. Raises InputError when there is no gap."""
        if self.gap <= 0:
            raise InputError(f"the gap is {self.gap:.2f}: this CLIP does not tell right texts from wrong ones")
        return margin / self.gap


def clip_scores(
    model: "CLIPModel",
    tokenizer: "PreTrainedTokenizerBase",
    images: Sequence[Image.Image],
    texts: Sequence[str],
    *,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    fit: Fit = "crop",
    batch_size: int = 64,
    seed: int = 0,
) -> ClipScores:
    """Score n images against their texts, and against the texts of partners that depend on the texts and seed alone.

    mean, std: of the pixels in [0, 1] that the model was trained on; the bundled CLIP takes (0.5,) * 3 for both. fit:
    "crop" cuts the middle square as CLIP's own preparation does, "squash" keeps all of a picture that is no square.
    Raises InputError, also when all texts are the same.
    """
    same_length(images=images, texts=texts)
    distinct = sorted(set(texts))
    index = np.array([distinct.index(text) for text in texts], dtype=np.int64)
    partner = derangement(len(distinct), seed)
    image_embeds = image_embeddings(model, images, mean=mean, std=std, fit=fit, batch_size=batch_size)
    text_embeds, cut = text_embeddings(model, tokenizer, distinct, batch_size=batch_size)
    matched, mismatched = (100 * (image_embeds * text_embeds[which]).sum(axis=1) for which in (index, partner[index]))
    return ClipScores(matched, mismatched, cut[index])


def image_embeddings(
    model: "CLIPModel",
    images: Iterable[Image.Image],
    *,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    fit: Fit = "crop",
    batch_size: int = 64,
    normalise: bool = True,
) -> np.ndarray:
    """(n, d) float64, of length 1 unless `normalise` is off. The images may come from a generator."""
    side = model.config.vision_config.image_size
    rows = []
    for batch in _batches(images, batch_size):
        pixels = torch.stack([_pixels(image, side, fit) for image in batch])
        pixels = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        with torch.inference_mode():
            rows.append(_pooled(model.get_image_features(pixel_values=pixels.to(model.device, model.dtype))))
    return _stacked(rows, normalise, "images")


def text_embeddings(
    model: "CLIPModel", tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], *, batch_size: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) float64 of length 1, and (n,) bool: which texts were longer than the model reads.

    A text that is too long loses words from its end and keeps its EOS, where CLIP reads the whole off.
    """
    length = model.config.text_config.max_position_embeddings
    rows, cut = [], []
    for batch in _batches(texts, batch_size):
        ids = tokenizer(batch, verbose=False)["input_ids"]
        cut += [len(row) > length for row in ids]
        ids = [row if len(row) <= length else row[: length - 1] + row[-1:] for row in ids]
        inputs = tokenizer.pad({"input_ids": ids}, padding="max_length", max_length=length, return_tensors="pt")
        with torch.inference_mode():
            features = model.get_text_features(
                input_ids=inputs["input_ids"].to(model.device), attention_mask=inputs["attention_mask"].to(model.device)
            )
        rows.append(_pooled(features))
    return _stacked(rows, True, "texts"), np.array(cut)


def derangement(n: int, seed: int = 0) -> np.ndarray:
    """(n,) int64: a random cycle through n items, which leaves none in its place. Raises InputError for n < 2."""
    if n < 2:
        raise InputError("one text has no partner: the gap needs two that differ")
    order = np.random.default_rng(seed).permutation(n)
    partner = np.empty(n, dtype=np.int64)
    partner[order] = np.roll(order, 1)
    return partner


def _pixels(image: Image.Image, side: int, fit: Fit) -> torch.Tensor:
    """(3, side, side) in [0, 1]."""
    if not isinstance(image, Image.Image):
        raise InputError(f"a {type(image).__name__} is no picture: pass PIL pictures")
    if fit not in ("crop", "squash"):
        raise InputError(f'fit is "crop" or "squash", not {fit!r}')
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255
    height, width = pixels.shape[1:]
    scale = side / min(height, width)
    size = (side, side) if fit == "squash" else (max(side, int(height * scale)), max(side, int(width * scale)))
    if size != (height, width):
        pixels = F.interpolate(pixels[None], size, mode="bicubic", antialias=True)[0].clamp(0, 1)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return pixels[:, top : top + side, left : left + side]


def _pooled(features) -> torch.Tensor:
    """The embedding: what transformers' get_*_features returned before version 5, and where it lies since."""
    return features if isinstance(features, torch.Tensor) else features.pooler_output


def _stacked(rows: list[torch.Tensor], normalise: bool, name: str) -> np.ndarray:
    if not rows:
        raise InputError(f"there are no {name} to score")
    embeds = torch.cat(rows).double().cpu().numpy()
    return embeds / np.linalg.norm(embeds, axis=1, keepdims=True) if normalise else embeds


def _batches(items: Iterable, size: int) -> Iterator[list]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
