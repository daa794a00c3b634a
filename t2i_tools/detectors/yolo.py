"""ultralytics' YOLO as a counter that can also steer. ultralytics is AGPL-3.0 and comes with the extra `count`.

Only its network is used: built from a yaml, filled from safetensors. No `.pt` is ever read or written.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from t2i_tools.detectors.detections import Detections, Images, clip_boxes, find_label, to_batch
from t2i_tools.detectors.weights import fill, read_weights, write_weights
from t2i_tools.errors import InputError, ModelError, UnsupportedModelError, first_line

if TYPE_CHECKING:
    from ultralytics.nn.tasks import DetectionModel

MULTIPLE = 32
Answer = tuple[Any, dict[str, Any]]  # of a network: decoded boxes, and the raw scores


def build_yolo(architecture: str | os.PathLike, classes: int | None = None) -> tuple["DetectionModel", list[str]]:
    """An untrained network, and the names its yaml gives to the classes ([] when it gives none).

    architecture: one of ultralytics' own by name ("yolo11n.yaml": the letter is the size) or a yaml file.
    Raises UnsupportedModelError without ultralytics, ModelError for a yaml that describes no detector.
    """
    name = os.fspath(architecture)
    if "://" in name:
        raise ModelError(f"{name} is an address: give a yaml file, or one of ultralytics' own by name")
    tasks = import_yolo()
    try:
        settings = tasks.yaml_model_load(name)
        names = settings.get("names") or []
        names = [str(n) for n in (names.values() if isinstance(names, dict) else names)]
        net = tasks.DetectionModel(settings | {"nc": classes or len(names) or settings["nc"]}, verbose=False)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise ModelError(f"{name} describes no YOLO detector: {first_line(error)}") from error
    return net, names


def import_yolo() -> ModuleType:
    """ultralytics' `nn.tasks`. Raises UnsupportedModelError."""
    try:
        with _without_side_effects():
            from ultralytics.nn import tasks
    except ImportError as error:
        hint = (
            "libGL is missing: install your system's libgl1"
            if "libGL" in str(error)
            else "pip install 't2i-tools[count]'"
        )
        raise UnsupportedModelError(f"a YOLO needs ultralytics ({first_line(error)}): {hint}") from error
    return tasks


class YoloCounter:
    """A `Guide` by a YOLO of closed classes."""

    def __init__(
        self,
        net: "DetectionModel",
        labels: Sequence[str],
        threshold: float = 0.4,
        overlap: float = 0.5,
        architecture: str | None = None,
    ):
        """threshold: the least score of an object. overlap: the IoU above which the weaker of two boxes of one class is
        dropped. architecture: the yaml's name, kept by `save`."""
        if net.model[-1].nc != len(labels):
            raise InputError(f"this YOLO has {net.model[-1].nc} classes, {len(labels)} labels were given")
        net.end2end = False  # the many-to-one head is the one whose raw scores count
        self.net, self.labels, self.architecture = net.eval().requires_grad_(False), tuple(labels), architecture
        self.threshold, self.overlap = threshold, overlap

    def detect(self, images: Images, label: str | None = None) -> list[Detections]:
        """See `Counter.detect`. An anchor counts for its best class only."""
        wanted = None if label is None else find_label(label, self.labels)
        batch, sizes = to_batch(images, MULTIPLE)
        if not sizes:
            return []
        with torch.inference_mode(False), torch.no_grad():  # YOLO caches its anchors: they must serve autograd too
            return self._objects(self.net(self._cast(batch)), sizes, wanted, self.labels)

    def potential(self, images: Images, label: str) -> torch.Tensor:
        """See `Guide.potential`; (B,) on the images' device. What lies in the padding of mixed sizes counts too."""
        index = find_label(label, self.labels)
        batch, sizes = to_batch(images, MULTIPLE)
        if not sizes:
            return torch.zeros(0)
        return self._sum(self.net(self._cast(batch)), index).to(batch.device)

    def examine(self, images: Images, label: str) -> tuple[list[Detections], torch.Tensor]:
        """`detect` and `potential` by one pass."""
        index = find_label(label, self.labels)
        batch, sizes = to_batch(images, MULTIPLE)
        if not sizes:
            return [], torch.zeros(0)
        answer = self.net(self._cast(batch))
        return self._objects(answer, sizes, index, self.labels), self._sum(answer, index).to(batch.device)

    def to(self, *args, **kwargs) -> "YoloCounter":
        """Moves the network as `Module.to` does."""
        self.net.to(*args, **kwargs)
        return self

    def save(self, path: str | os.PathLike) -> None:
        """One safetensors file in half precision; yaml's name, labels and thresholds are in its header."""
        about = {"architecture": self.architecture, "labels": self.labels}
        write_weights(path, self.net, about | {"threshold": self.threshold, "overlap": self.overlap})

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        architecture: str | os.PathLike | None = None,
        labels: Sequence[str] | None = None,
        threshold: float | None = None,
    ) -> "YoloCounter":
        """Weights in safetensors. What is not given comes from the header that `save` wrote, labels also from the yaml.

        Raises ModelError when the file is missing, broken, or does not fit the architecture.
        """
        tensors, about = read_weights(path)
        architecture = architecture or about.get("architecture")
        if architecture is None:
            raise ModelError(f"{path} does not say which YOLO it is: give its yaml beside it")
        labels = labels or about.get("labels")
        net, names = build_yolo(architecture, len(labels) if labels else None)
        labels = labels or names or [str(index) for index in range(net.model[-1].nc)]
        given = {
            "threshold": threshold if threshold is not None else about.get("threshold"),
            "overlap": about.get("overlap"),
        }
        given = {name: value for name, value in given.items() if value is not None}
        return cls(fill(net, tensors, path), labels, architecture=os.fspath(architecture), **given)

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


@contextmanager
def _without_side_effects() -> Iterator[None]:
    """Lets ultralytics be imported alone.

    It would look for a network, log to stdout, which belongs to our JSON, and replace `Image.open` by one that runs
    pip for a file it cannot read.
    """
    replaced, environment = (Image.open, torch.save), dict(os.environ)
    os.environ |= {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true"}
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        Image.open, torch.save = replaced
        for name in ("YOLO_AUTOINSTALL", "YOLO_OFFLINE"):
            os.environ.pop(name)
            if name in environment:
                os.environ[name] = environment[name]
