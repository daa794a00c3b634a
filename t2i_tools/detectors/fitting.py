"""Images shrunk to what a detector was trained for, and its boxes given back in the images' own pixels."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from PIL import Image

from t2i_tools.detectors.detections import Detections, Images, clip_boxes
from t2i_tools.images.open_image import to_rgb

Size: TypeAlias = tuple[int, int]  # (height, width)


def at_most(image_size: int) -> Callable[[Size], Size]:
    """The rule that no image has more pixels than a square of this side; smaller ones keep their scale."""

    def rule(size: Size) -> Size:
        scale = min(1.0, image_size / (size[0] * size[1]) ** 0.5)
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    return rule


def fit(images: Images, rule: Callable[[Size], Size], antialias: bool = True) -> tuple[Images, list[Size]]:
    """The images at the sizes that a rule gives, and their own sizes (height, width).

    A tensor keeps its graph; `antialias` is of tensors. What is no image is left as it is, for `to_batch` to refuse.
    """
    if isinstance(images, torch.Tensor):
        if images.ndim != 4 or not len(images):
            return images, []
        size = (images.shape[-2], images.shape[-1])
        return resize(images, rule(size), antialias), [size] * len(images)
    if isinstance(images, Image.Image) or not all(isinstance(image, Image.Image) for image in images):
        return images, []
    sizes = [(image.height, image.width) for image in images]
    return [_resized(image, rule(size)) for image, size in zip(images, sizes, strict=True)], sizes


def resize(images: torch.Tensor, size: Size, antialias: bool = True) -> torch.Tensor:
    """Images (B, 3, H, W) at another size, with their graph and dtype."""
    if size == images.shape[-2:]:
        return images
    return F.interpolate(images.float(), size=size, mode="bilinear", antialias=antialias).to(images.dtype)


def restore(found: Sequence[Detections], sizes: Sequence[Size], own: Sequence[Size]) -> list[Detections]:
    """What was found in images of some sizes, in the pixels of their own sizes."""
    return [_enlarged(*one) for one in zip(found, sizes, own, strict=True)]


def _resized(image: Image.Image, size: Size) -> Image.Image:
    if size == (image.height, image.width):
        return image
    return to_rgb(image).resize(size[::-1], Image.Resampling.BILINEAR)


def _enlarged(found: Detections, size: Size, own: Size) -> Detections:
    if size == own:
        return found
    scale = found.boxes.new_tensor([own[1] / size[1], own[0] / size[0]] * 2)
    return Detections(found.labels, clip_boxes(found.boxes * scale, own), found.scores)
