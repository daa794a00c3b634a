"""CLIP score, 100 cos(image, text) (Hessel et al. 2021), with the gap that gives it a scale

    gap = mean of score(image, its text) - mean of score(image, another's text),

each text's partner being fixed by a derangement. A margin between methods is read as a share of the gap: what fraction
of "right text instead of wrong text" it is worth. The scoring CLIP takes no part in what it scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from t2i_tools.errors import InputError
from t2i_tools.images.open_image import to_rgb
from t2i_tools.metrics.checks import same_length
from t2i_tools.models.loading import opening, pick_device

if TYPE_CHECKING:
    from transformers import CLIPModel, PreTrainedTokenizerBase

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's
BATCH = 64
ClipFit = Literal["crop", "squash"]
T = TypeVar("T")


@dataclass(frozen=True)
class ClipScores:
    """CLIP scores of images with their own texts and with wrong ones.

    Attributes:
        matched: (n,) float64, 100 cos of each image with its text.
        mismatched: (n,) float64, the same with the partner's text.
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
            raise InputError(f"the gap is {self.gap:.2f}: this CLIP does not separate right texts from wrong ones")
        return margin / self.gap


class ClipScorer:
    """A CLIP comes with its tokenizer and the preparation of images that it was trained with.

    Args:
        model: A transformers `CLIPModel`; it is put into eval mode.
        tokenizer: The model's tokenizer.
        mean: Of the RGB values in [0, 1], three numbers; OpenAI's by default, (0.5,) * 3 for images in [-1, 1].
        std: Likewise.
        fit: "crop" (the default) cuts the middle square as CLIP's own preparation does, "squash" keeps all of an image
            that is no square.

    Raises:
        InputError: `fit` is neither.

    Example:
        >>> scorer = t2i.load_bundled_clip()
        >>> scorer.score(pipe("two cats").images, ["two cats"]).shape
        (1,)
    """

    def __init__(
        self,
        model: CLIPModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        fit: ClipFit = "crop",
    ) -> None:
        if fit not in ("crop", "squash"):
            raise InputError(f'fit is "crop" or "squash", not {fit!r}')
        self.model, self.tokenizer = model.eval(), tokenizer
        self.mean, self.std, self.fit = tuple(mean), tuple(std), fit

    @classmethod
    def load(cls, name: str, *, device: torch.device | str | None = None) -> ClipScorer:
        """Open a CLIP from the Hub or a folder; only safetensors are read.

        Args:
            name: Hub id or folder, for instance "openai/clip-vit-base-patch32".
            device: Where it computes; None (the default) for the best there is.

        Returns:
            The scorer, with OpenAI's preparation.

        Raises:
            ModelError: It cannot be opened.
            InputError: There is no such device.
            OutOfMemoryError: It does not fit into memory.
        """
        from transformers import AutoTokenizer, CLIPModel

        with opening(name):
            model = CLIPModel.from_pretrained(name, use_safetensors=True)
            return cls(model.to(pick_device(device)), AutoTokenizer.from_pretrained(name))

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> np.ndarray:
        """Score images with their texts.

        Args:
            images: n images.
            texts: n texts.

        Returns:
            (n,) float64, 100 cos of each image with its text.

        Raises:
            InputError: The lengths differ, there are no images, or one is no PIL image.

        Source: Hessel et al. 2021, arXiv 2104.08718, times 100 and without its cut at 0.
        """
        same_length(images=images, texts=texts)
        return 100 * (self.embed_images(images) * self.embed_texts(texts)[0]).sum(axis=1)

    def compare(self, images: Sequence[Image.Image], texts: Sequence[str], *, seed: int = 0) -> ClipScores:
        """Score images against their texts and against those of partners.

        Args:
            images: n images.
            texts: n texts, at least two of them different.
            seed: Draws the partners, which depend on it and the texts alone; 0 by default.

        Returns:
            Both scores of each image; their difference is the scale of the first.

        Raises:
            InputError: The lengths differ, all texts are the same, or an image is no PIL image.
        """
        same_length(images=images, texts=texts)
        distinct = sorted(set(texts))
        index = np.array([distinct.index(text) for text in texts], dtype=np.int64)
        partner = derangement(len(distinct), seed)
        image_embeds, (text_embeds, cut) = self.embed_images(images), self.embed_texts(distinct)
        matched, mismatched = (100 * (image_embeds * text_embeds[at]).sum(axis=1) for at in (index, partner[index]))
        return ClipScores(matched, mismatched, cut[index])

    def embed_images(
        self, images: Iterable[Image.Image], *, normalize: bool = True, batch_size: int = BATCH
    ) -> np.ndarray:
        """Embed images.

        Args:
            images: n images, which may come from a generator.
            normalize: Whether the embeddings are brought to length 1; True by default.
            batch_size: Images per pass; 64 by default.

        Returns:
            (n, d) float64.

        Raises:
            InputError: There are no images, or one is no PIL image.
        """
        rows = []
        for batch in _batches(images, batch_size):
            pixels = torch.cat([self.prepare(_to_tensor(image)) for image in batch])
            with torch.inference_mode():
                rows.append(self.image_features(pixels))
        return _stacked(rows, normalize, "images")

    def embed_texts(
        self, texts: Sequence[str], *, keep: int | None = None, batch_size: int = BATCH
    ) -> tuple[np.ndarray, np.ndarray]:
        """Embed texts, those that are too long without words from their end.

        Args:
            texts: n texts.
            keep: Tokens that are read, begin and end included; None (the default) for as many as the model takes.
            batch_size: Texts per pass; 64 by default.

        Returns:
            (n, d) float64 of length 1, and (n,) bool: which texts were cut. A cut text keeps its EOS, where CLIP reads
            the whole off.

        Raises:
            InputError: There are no texts.
        """
        positions = self.model.config.text_config.max_position_embeddings
        length = min(keep or positions, positions)
        rows: list[torch.Tensor] = []
        cut: list[bool] = []
        for batch in _batches(texts, batch_size):
            ids = self.tokenizer(batch, verbose=False)["input_ids"]
            cut += [len(row) > length for row in ids]
            ids = [row if len(row) <= length else row[: length - 1] + row[-1:] for row in ids]
            with torch.inference_mode():
                rows.append(self.text_features(ids))
        return _stacked(rows, True, "texts"), np.array(cut)

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Resize, cut and normalize images for `image_features`; a gradient goes through.

        Args:
            images: (B, 3, H, W) in [0, 1].

        Returns:
            (B, 3, side, side).
        """
        side = self.model.config.vision_config.image_size
        height, width = images.shape[2:]
        scale = side / min(height, width)
        size = (max(side, int(height * scale)), max(side, int(width * scale)))
        size = (side, side) if self.fit == "squash" else size
        if size != (height, width):
            images = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = (size[0] - side) // 2, (size[1] - side) // 2
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (images[:, :, top : top + side, left : left + side] - mean) / std

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed images that `prepare` made; a gradient goes through.

        Args:
            pixels: (B, 3, side, side).

        Returns:
            (B, d) on the model's device, of any length.
        """
        return _pooled(self.model.get_image_features(pixel_values=pixels.to(self.model.device, self.model.dtype)))

    def text_features(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Embed token ids, padded to what the model takes.

        Args:
            ids: B lists of ids, begin and end included.

        Returns:
            (B, d) on the model's device, of any length.
        """
        length = self.model.config.text_config.max_position_embeddings
        inputs = self.tokenizer.pad({"input_ids": ids}, padding="max_length", max_length=length, return_tensors="pt")
        inputs = inputs.to(self.model.device)
        return _pooled(
            self.model.get_text_features(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        )


def derangement(n: int, seed: int = 0) -> np.ndarray:
    """(n,) int64: a random cycle through n items, which leaves none in its place. Raises InputError for n < 2."""
    if n < 2:
        raise InputError("the gap needs two different texts: give another one")
    order = np.random.default_rng(seed).permutation(n)
    partner = np.empty(n, dtype=np.int64)
    partner[order] = np.roll(order, 1)
    return partner


def _to_tensor(image: Image.Image) -> torch.Tensor:
    """(1, 3, H, W) in [0, 1]."""
    if not isinstance(image, Image.Image):
        raise InputError(f"a {type(image).__name__} is not an image: pass PIL images")
    return torch.from_numpy(np.array(to_rgb(image))).permute(2, 0, 1)[None].float() / 255


def _pooled(features: Any) -> torch.Tensor:
    """The embedding: what transformers' get_*_features returned before version 5, and where it lies since."""
    return features if isinstance(features, torch.Tensor) else features.pooler_output


def _stacked(rows: list[torch.Tensor], normalize: bool, name: str) -> np.ndarray:
    if not rows:
        raise InputError(f"there are no {name} to score")
    embeds = torch.cat(rows).double().cpu().numpy()
    return embeds / np.linalg.norm(embeds, axis=1, keepdims=True) if normalize else embeds


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
