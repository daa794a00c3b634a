"""What every detector gives, and what every counter can do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from t2i_tools.detectors.names import spelling
from t2i_tools.errors import InputError
from t2i_tools.images.open_image import to_rgb

Images: TypeAlias = Sequence[Image.Image] | torch.Tensor


@dataclass(frozen=True)
class Detections:
    """The objects found in one picture, surest first.

    labels: k class names. boxes: (k, 4) float32, xyxy in the picture's own pixels. scores: (k,) float32 in [0, 1].
    """

    labels: list[str]
    boxes: torch.Tensor
    scores: torch.Tensor

    @property
    def count(self) -> int:
        """How many objects there are."""
        return len(self.labels)

    def of(self, label: str) -> "Detections":
        """Those of one class by any of its names; an unknown name has none."""
        kept = [i for i, name in enumerate(self.labels) if spelling(name) & spelling(label)]
        return Detections([self.labels[i] for i in kept], self.boxes[kept], self.scores[kept])


@runtime_checkable
class Counter(Protocol):
    """Finds objects. A counter that can also steer has `potential(images, label) -> Tensor (B,)` (see `Guide`)."""

    def detect(self, images: Images, label: str | None = None) -> list[Detections]:
        """The objects of one class, or of every class the counter knows, in each picture.

        images: list of PIL pictures of any sizes, or a tensor (B, 3, H, W) in [0, 1]. Raises InputError when it does
        not know the label.
        """
        ...


@runtime_checkable
class Guide(Counter, Protocol):
    """A counter whose count has a gradient (Zafar et al. 2024). One that can give both in one pass of its network has
    `examine(images, label) -> (list[Detections], Tensor (B,))`.
    """

    def potential(self, images: Images, label: str) -> torch.Tensor:
        """(B,): sum of the raw class scores before suppression, differentiable in `images`; proportional to a count."""
        ...


def to_batch(images: Images, multiple: int = 1, fill: float = 0.5) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """One tensor (B, 3, H, W) in [0, 1] and each picture's own (height, width).

    Pictures keep their scale and lie at the top left; what is missing to the largest side, rounded up to `multiple`,
    is filled, so that boxes need no correction. A tensor keeps its graph. Raises InputError for what is no picture.
    """
    if isinstance(images, Image.Image):
        raise InputError("one image was given where a list of images is expected: pass [image]")
    if isinstance(images, torch.Tensor):
        if images.ndim != 4 or images.shape[1] != 3:
            raise InputError(f"a tensor of images has the shape (B, 3, H, W), not {tuple(images.shape)}")
        tensors = [images] if len(images) else []
        sizes = [_size(images)] * len(images)
    else:
        tensors = [_tensor(image)[None] for image in images]
        sizes = [_size(tensor) for tensor in tensors]
    if not sizes:
        return torch.zeros(0, 3, multiple, multiple), []
    height, width = (-(-max(side) // multiple) * multiple for side in zip(*sizes, strict=True))
    padded = [F.pad(t, (0, width - t.shape[-1], 0, height - t.shape[-2]), value=fill) for t in tensors]
    return torch.cat(padded), sizes


def clip_boxes(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Boxes (k, 4) xyxy cut at the edges of a picture of (height, width)."""
    height, width = size
    return boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))


def _size(images: torch.Tensor) -> tuple[int, int]:
    height, width = images.shape[-2:]
    return height, width


def _tensor(image: Image.Image) -> torch.Tensor:
    if not isinstance(image, Image.Image):
        raise InputError(f"a {type(image).__name__} is not an image: pass PIL images or a tensor (B, 3, H, W)")
    return torch.from_numpy(np.array(to_rgb(image))).permute(2, 0, 1).float() / 255
