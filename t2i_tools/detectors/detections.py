"""What every detector gives, and what every counter can do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from t2i_tools.errors import InputError

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
        """Those of one class; singular or plural, and an unknown name has none."""
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
        raise InputError("one picture was given where a list of pictures is expected: pass [picture]")
    if isinstance(images, torch.Tensor):
        if images.ndim != 4 or images.shape[1] != 3:
            raise InputError(f"a tensor of pictures has the shape (B, 3, H, W), not {tuple(images.shape)}")
        tensors = [images] if len(images) else []
        sizes = [tuple(images.shape[-2:])] * len(images)
    else:
        tensors = [_tensor(image)[None] for image in images]
        sizes = [tuple(tensor.shape[-2:]) for tensor in tensors]
    if not sizes:
        return torch.zeros(0, 3, multiple, multiple), []
    height, width = (-(-max(side) // multiple) * multiple for side in zip(*sizes, strict=True))
    padded = [F.pad(t, (0, width - t.shape[-1], 0, height - t.shape[-2]), value=fill) for t in tensors]
    return torch.cat(padded), sizes


def clip_boxes(boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Boxes (k, 4) xyxy cut at the edges of a picture of (height, width)."""
    height, width = size
    return boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))


def find_label(label: str, known: Sequence[str]) -> int:
    """The index of a class by its name, singular or plural. Raises InputError naming the known ones."""
    matches = [index for index, name in enumerate(known) if spelling(name) & spelling(label)]
    if matches:
        return next((index for index in matches if known[index].lower() == label.lower()), matches[0])
    some = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    raise InputError(f"this detector does not know {label!r}, only {some}")


def spelling(label: str) -> frozenset[str]:
    """A class name and what it may be the plural of, without capitals: "Cherries" -> cherries, cherry, cherrie, cherri.

    Two names mean the same class when these sets meet, so that no rule has to know whether "bus" is a plural.
    """
    word = " ".join(label.lower().replace("_", " ").split())
    head, _, last = word.rpartition(" ")
    forms = {last, IRREGULAR.get(last, last)}
    if last.endswith("ies"):
        forms.add(last[:-3] + "y")
    if last.endswith("ves"):
        forms |= {last[:-3] + "f", last[:-3] + "fe"}
    if last.endswith("es"):
        forms.add(last[:-2])
    if last.endswith("s") and not last.endswith("ss"):
        forms.add(last[:-1])
    return frozenset(f"{head} {form}".strip() for form in forms)


IRREGULAR = {"people": "person", "men": "man", "women": "woman", "children": "child", "mice": "mouse", "geese": "goose"}
IRREGULAR |= {"teeth": "tooth", "feet": "foot", "oxen": "ox"}


def _tensor(image: Image.Image) -> torch.Tensor:
    if not isinstance(image, Image.Image):
        raise InputError(f"a {type(image).__name__} is no picture: pass PIL pictures or a tensor (B, 3, H, W)")
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255
