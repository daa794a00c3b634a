"""A detector that sees objects as peaks of a heatmap (Zhou et al. 2019, "Objects as Points"), small enough for a CPU.

It shares nothing with YOLO: no anchors, no boxes compared with boxes, no suppression but the peak itself. That makes
it a judge of pictures that were optimised against a YOLO.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from t2i_tools.detectors.detections import Detections, Images, clip_boxes, to_batch
from t2i_tools.detectors.fitting import at_most, fit, restore
from t2i_tools.detectors.names import find_label
from t2i_tools.detectors.weights import check_header, fill, is_labels, is_share, is_side, read_weights, write_weights
from t2i_tools.errors import ModelError

STRIDE = 4
MULTIPLE = 16
FORMAT = "t2i-tools heatmap 1"
MOST_CHANNELS = 4096
IMAGE_SIZE = 256  # of a square: an object has six cells, and twice that is still seen


class Maps(NamedTuple):
    """What the network says of every cell of STRIDE x STRIDE pixels.

    heat: (B, C, h, w) logits, high at the centre of an object of that class. size: (B, 2, h, w), log of width and
    height in cells. offset: (B, 2, h, w), x and y of the centre inside its cell, in [0, 1].
    """

    heat: torch.Tensor
    size: torch.Tensor
    offset: torch.Tensor


class Residual(nn.Module):
    """x + two 3x3 convolutions of x."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = _convolution(width, width), _convolution(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class HeatmapNet(nn.Module):
    """Residual blocks at strides 4, 8 and 16; what the coarser ones know is added to the finer ones.

    0.67 M parameters; a picture of 128x128 takes about 5 ms on one core.
    """

    def __init__(self, classes: int, widths: Sequence[int] = (40, 80, 112)):
        super().__init__()
        fine, middle, coarse = widths
        self.stem = nn.Sequential(_convolution(3, fine // 2, 2), nn.ReLU(), _convolution(fine // 2, fine, 2), nn.ReLU())
        self.fine = nn.Sequential(Residual(fine), Residual(fine))
        self.middle = nn.Sequential(_convolution(fine, middle, 2), nn.ReLU(), Residual(middle), Residual(middle))
        self.coarse = nn.Sequential(_convolution(middle, coarse, 2), nn.ReLU(), Residual(coarse))
        self.to_middle, self.to_fine = nn.Conv2d(coarse, middle, 1), nn.Conv2d(middle, fine, 1)
        self.neck = nn.Sequential(_convolution(fine, 64), nn.ReLU())
        self.heat, self.size, self.offset = nn.Conv2d(64, classes, 1), nn.Conv2d(64, 2, 1), nn.Conv2d(64, 2, 1)
        # A centre is rare, sigmoid(-4.6) = 1 %, and an object has six cells, 24 pixels.
        for layer, bias in ((self.heat, -4.6), (self.size, 1.8), (self.offset, 0.5)):
            assert layer.bias is not None
            nn.init.constant_(layer.bias, bias)

    def forward(self, images: torch.Tensor) -> Maps:
        """images: (B, 3, H, W) in [0, 1], sides multiples of 16."""
        fine = self.fine(self.stem(images * 2 - 1))
        middle = self.middle(fine)
        middle = middle + self.to_middle(_twice(self.coarse(middle)))
        features = self.neck(fine + self.to_fine(_twice(middle)))
        return Maps(self.heat(features), self.size(features), self.offset(features))


def decode(maps: Maps, labels: Sequence[str], threshold: float) -> list[Detections]:
    """The peaks of the heat, one object each, in every picture of a batch.

    A peak is the largest of its 3x3 cells over all classes, so that one object is never counted under two names.
    """
    scores, classes = maps.heat.sigmoid().max(1)  # (B, h, w)
    peaks = (scores == F.max_pool2d(scores, 3, 1, 1)) & (scores > threshold)
    return [_objects(peaks[i], scores[i], classes[i], maps.size[i], maps.offset[i], labels) for i in range(len(scores))]


class HeatmapCounter:
    """A `Counter` by a trained `HeatmapNet`. It has no `potential`: it judges and does not steer."""

    def __init__(self, net: HeatmapNet, labels: Sequence[str], threshold: float = 0.35, image_size: int = IMAGE_SIZE):
        """image_size: as in `YoloCounter`."""
        self.net, self.labels, self.threshold = net.eval(), tuple(labels), threshold
        self.image_size = image_size

    @torch.no_grad()
    def detect(self, images: Images, label: str | None = None) -> list[Detections]:
        """See `Counter.detect`."""
        name = None if label is None else self.labels[find_label(label, self.labels)]
        fitted, own = fit(images, at_most(self.image_size))
        batch, sizes = to_batch(fitted, MULTIPLE)
        if not sizes:
            return []
        weight = self.net.heat.weight
        maps = self.net(batch.to(weight.device, weight.dtype))
        found = decode(Maps(*(m.float().cpu() for m in maps)), self.labels, self.threshold)
        found = restore([_inside(one, size) for one, size in zip(found, sizes, strict=True)], sizes, own)
        return found if name is None else [one.of(name) for one in found]

    def to(self, *args, **kwargs) -> "HeatmapCounter":
        """Moves the network as `Module.to` does."""
        self.net.to(*args, **kwargs)
        return self

    def save(self, path: str | os.PathLike) -> None:
        """One safetensors file in half precision; labels, widths and threshold are in its header."""
        net = self.net
        widths = [net.to_fine.out_channels, net.to_middle.out_channels, net.to_middle.in_channels]
        about = {"format": FORMAT, "labels": self.labels, "widths": widths}
        write_weights(path, net, about | {"threshold": self.threshold, "image_size": self.image_size})

    @classmethod
    def load(cls, path: str | os.PathLike, threshold: float | None = None) -> "HeatmapCounter":
        """Reads what `save` wrote. Raises ModelError when the file is missing, broken or something else."""
        tensors, about = read_weights(path)
        if about.get("format") != FORMAT:
            raise ModelError(f"{path} is not a heatmap detector: its header does not say {FORMAT!r}")
        if missing := [name for name in HEADER if about.get(name) is None]:
            raise ModelError(f"{path} is damaged: its header has no {missing[0]}")
        check_header(path, about, HEADER | {"image_size": is_side})
        net = fill(HeatmapNet(len(about["labels"]), about["widths"]), tensors, path)
        image_size = about.get("image_size") or IMAGE_SIZE
        return cls(net, about["labels"], about["threshold"] if threshold is None else threshold, image_size)


def _is_widths(value: Any) -> bool:
    """Three even numbers of channels."""
    whole = isinstance(value, list) and len(value) == 3 and all(type(one) is int for one in value)
    return whole and all(2 <= one <= MOST_CHANNELS and one % 2 == 0 for one in value)


HEADER = {"labels": is_labels, "widths": _is_widths, "threshold": is_share}


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))


def _twice(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _objects(peaks, scores, classes, size, offset, labels) -> Detections:
    rows, columns = torch.where(peaks)
    order = scores[rows, columns].argsort(descending=True, stable=True)
    rows, columns = rows[order], columns[order]
    centres = torch.stack([columns, rows], 1) + offset[:, rows, columns].T
    half = size[:, rows, columns].T.exp() / 2
    names = [labels[c] for c in classes[rows, columns].tolist()]
    return Detections(names, torch.cat([centres - half, centres + half], 1) * STRIDE, scores[rows, columns])


def _inside(found: Detections, size: tuple[int, int]) -> Detections:
    """Without what was seen in the padding."""
    x, y = ((found.boxes[:, :2] + found.boxes[:, 2:]) / 2).T
    kept = torch.where((x < size[1]) & (y < size[0]))[0].tolist()
    return Detections([found.labels[i] for i in kept], clip_boxes(found.boxes[kept], size), found.scores[kept])
