"""ultralytics' YOLO as a counter that can also steer. ultralytics is AGPL-3.0 and comes with the extra `count`.

Only its network is used: built from a yaml, filled from safetensors. A `.pt` is only read by `checkpoint.py`.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from t2i_tools.detectors.architecture import Architecture, building, class_names, import_yolo, read_architecture
from t2i_tools.detectors.detections import Detections, Images, clip_boxes, to_batch
from t2i_tools.detectors.fitting import Size, at_most, fit, restore
from t2i_tools.detectors.names import find_label, listed
from t2i_tools.detectors.weights import check_header, fill, is_labels, is_share, is_side, read_weights, write_weights
from t2i_tools.errors import InputError, ModelError

if TYPE_CHECKING:
    from ultralytics.nn.tasks import DetectionModel

MULTIPLE = 32
IMAGE_SIZE = 640  # ultralytics' own, where nothing says another
Answer = tuple[Any, dict[str, Any]]  # of a network: decoded boxes, and the raw scores


def _is_architecture(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, str) and value.isprintable())


HEADER: dict[str, Callable[[Any], object]] = {"kind": lambda value: isinstance(value, str)}
HEADER["image_size"] = is_side
HEADER |= {"architecture": _is_architecture, "labels": is_labels, "threshold": is_share, "overlap": is_share}


def build_yolo(architecture: Architecture, classes: int | None = None) -> tuple["DetectionModel", list[str]]:
    """An untrained network, and the names its yaml gives to the classes ([] when it gives none).

    architecture: see `read_architecture`. Raises UnsupportedModelError without ultralytics, ModelError for what
    describes no detector.
    """
    what = "YOLO detector"
    settings = read_architecture(architecture, what)
    with building(architecture, what):
        names = class_names(settings)
        count = classes or len(names) or settings["nc"]
        return import_yolo().DetectionModel(settings | {"nc": count}, verbose=False), names


def count_classes(tensors: Mapping[str, torch.Tensor]) -> int | None:
    """The number of classes in the tensors of a YOLO, the rows of its head's first scores; None without."""
    rows = [len(tensor) for name, tensor in tensors.items() if re.fullmatch(r"model\.\d+\.cv3\.0\.2\.bias", name)]
    return rows[-1] if rows else None


def fill_yolo(net: "DetectionModel", tensors: Mapping[str, torch.Tensor], path: str | os.PathLike) -> "DetectionModel":
    """`fill`, also of a network whose normalisations were folded into its convolutions before it was saved."""
    if not any(".bn." in name for name in tensors):
        net.fuse(verbose=False)
    return fill(net, tensors, path)


class YoloCounter:
    """A `Guide` by a YOLO of closed classes."""

    def __init__(
        self,
        net: "DetectionModel",
        labels: Sequence[str],
        threshold: float = 0.4,
        overlap: float = 0.5,
        architecture: str | Mapping[str, Any] | None = None,
        image_size: int = IMAGE_SIZE,
    ):
        """threshold: the least score of an object. overlap: the IoU above which the weaker of two boxes of one class is
        dropped. architecture: the yaml's name or its content, kept by `save`. image_size: of the square whose number of
        pixels larger images are shrunk to, the side of the images that it was trained on."""
        if net.model[-1].nc != len(labels):
            raise InputError(f"this YOLO has {net.model[-1].nc} classes, {len(labels)} labels were given")
        net.end2end = False  # the many-to-one head is the one whose raw scores count
        self.net, self.labels, self.architecture = net.eval().requires_grad_(False), tuple(labels), architecture
        self.threshold, self.overlap, self.image_size = threshold, overlap, image_size

    def detect(self, images: Images, label: str | None = None) -> list[Detections]:
        """See `Counter.detect`. An anchor counts for its best class only."""
        wanted = None if label is None else find_label(label, self.labels)
        batch, sizes, own = self._fit(images)
        if not sizes:
            return []
        with torch.inference_mode(False), torch.no_grad():  # YOLO caches its anchors: they must serve autograd too
            return restore(self._objects(self.net(self._cast(batch)), sizes, wanted, self.labels), sizes, own)

    def potential(self, images: Images, label: str) -> torch.Tensor:
        """See `Guide.potential`; (B,) on the images' device. What lies in the padding of mixed sizes counts too."""
        index = find_label(label, self.labels)
        batch, sizes, _ = self._fit(images)
        if not sizes:
            return torch.zeros(0)
        return self._sum(self.net(self._cast(batch)), index).to(batch.device)

    def examine(self, images: Images, label: str) -> tuple[list[Detections], torch.Tensor]:
        """`detect` and `potential` by one pass."""
        index = find_label(label, self.labels)
        batch, sizes, own = self._fit(images)
        if not sizes:
            return [], torch.zeros(0)
        answer = self.net(self._cast(batch))
        found = restore(self._objects(answer, sizes, index, self.labels), sizes, own)
        return found, self._sum(answer, index).to(batch.device)

    def to(self, *args, **kwargs) -> "YoloCounter":
        """Moves the network as `Module.to` does."""
        self.net.to(*args, **kwargs)
        return self

    def save(self, path: str | os.PathLike) -> None:
        """One safetensors file in half precision; yaml's name, labels and thresholds are in its header."""
        about = {"architecture": self.architecture, "labels": self.labels, "image_size": self.image_size}
        write_weights(path, self.net, about | {"threshold": self.threshold, "overlap": self.overlap})

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        architecture: Architecture | None = None,
        labels: Sequence[str] | None = None,
        threshold: float | None = None,
        image_size: int | None = None,
    ) -> "YoloCounter":
        """Weights in safetensors. What is not given comes from their header, the labels also from the yaml.

        Raises ModelError when the file is missing, broken, or does not fit the architecture or the labels.
        """
        tensors, about = read_weights(path)
        check_header(path, about, HEADER)
        architecture = architecture or about.get("architecture")
        if architecture is None:
            raise ModelError(f"{path} does not say which YOLO it is: give its yaml beside it")
        net, names = build_yolo(architecture, count_classes(tensors))
        net, classes = fill_yolo(net, tensors, path), net.model[-1].nc
        labels = labels or about.get("labels") or names or [str(index) for index in range(classes)]
        if len(labels) != classes:
            fault = f"{path} has {classes} classes and {len(labels)} names for them ({listed(labels)})"
            raise ModelError(f"{fault}: list all of them, in order, under 'names' in a yaml beside it")
        settings = {
            "threshold": threshold if threshold is not None else about.get("threshold"),
            "overlap": about.get("overlap"),
            "image_size": image_size or about.get("image_size"),
        }
        known: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
        kept = architecture if isinstance(architecture, Mapping) else os.fspath(architecture)
        return cls(net, labels, architecture=kept, **known)

    def _fit(self, images: Images) -> tuple[torch.Tensor, list[Size], list[Size]]:
        """The batch for the network, the sizes of the images in it, and their own."""
        fitted, own = fit(images, at_most(self.image_size))
        return *to_batch(fitted, MULTIPLE), own

    def _cast(self, batch: torch.Tensor) -> torch.Tensor:
        weight = next(self.net.parameters())
        return batch.to(weight.device, weight.dtype)

    def _objects(
        self, answer: Answer, sizes: list[tuple[int, int]], wanted: int | None, labels: Sequence[str]
    ) -> list[Detections]:
        boxes = answer[0][0] if isinstance(answer[0], tuple) else answer[0]  # with masks beside them
        predictions = boxes[:, : 4 + len(labels)].detach().float().cpu()  # (B, 4 + classes, anchors)
        return [self._suppress(one, size, wanted, labels) for one, size in zip(predictions, sizes, strict=True)]

    def _sum(self, answer: Answer, index: int) -> torch.Tensor:
        scores = answer[1].get("one2many", answer[1])["scores"]  # (B, classes, anchors), logits
        return scores[:, index].float().sigmoid().sum(1)

    def _suppress(
        self, prediction: torch.Tensor, size: tuple[int, int], wanted: int | None, labels: Sequence[str]
    ) -> Detections:
        from torchvision.ops import batched_nms, box_convert

        boxes = box_convert(prediction[:4].T, "cxcywh", "xyxy")
        scores, classes = prediction[4:].max(0)
        inside = (prediction[0] < size[1]) & (prediction[1] < size[0])
        good = (scores > self.threshold) & inside & (classes == wanted if wanted is not None else True)
        boxes, scores, classes = boxes[good], scores[good], classes[good]
        kept = batched_nms(boxes, scores, classes, self.overlap)
        names = [labels[c] for c in classes[kept].tolist()]
        return Detections(names, clip_boxes(boxes[kept], size), scores[kept])
