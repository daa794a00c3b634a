"""Detectors of transformers: closed classes (YOLOS, DETR, RT-DETR...) and any word (OWLv2, Grounding DINO...)."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image

from t2i_tools.detectors.detections import Detections, Images, clip_boxes, to_batch
from t2i_tools.detectors.fitting import Size, fit, resize
from t2i_tools.detectors.names import find_label, spelling
from t2i_tools.detectors.weights import MOST_PIXELS
from t2i_tools.errors import InputError, ModelError, UnsupportedModelError
from t2i_tools.models.loading import HUB_ID, opening

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin
    from transformers.image_processing_utils import BaseImageProcessor

ALIASED = ("RfDetrImageProcessor",)  # resize images without smoothing them


class TransformersCounter:
    """A `Guide` by a detector of closed classes. Pictures are prepared in torch, so that the count has a gradient."""

    def __init__(self, model: "PreTrainedModel", processor: "BaseImageProcessor", threshold: float = 0.5):
        """processor: lends size, mean and standard deviation."""
        self.model, self.processor, self.threshold = model.eval().requires_grad_(False), processor, threshold
        names = model.config.id2label
        self.labels = tuple(names.get(index, str(index)) for index in range(max(names, default=-1) + 1))
        self.antialias = type(processor).__name__ not in ALIASED

    @torch.no_grad()
    def detect(self, images: Images, label: str | None = None) -> list[Detections]:
        """See `Counter.detect`. A query counts for its best class only."""
        wanted = None if label is None else find_label(label, self.labels)
        found = []
        for batch, sizes in self._batches(images):
            scores, boxes = self._predict(batch)
            rows = zip(scores.float().cpu(), boxes.float().cpu(), sizes, strict=True)
            found += [self._objects(*row, wanted) for row in rows]
        return found

    def potential(self, images: Images, label: str) -> torch.Tensor:
        """See `Guide.potential`; (B,) on the images' device."""
        index = find_label(label, self.labels)
        scores = [self._predict(batch)[0][..., index].to(batch.device) for batch, _ in self._batches(images)]
        return torch.cat([one.float().sum(1) for one in scores]) if scores else torch.zeros(0)

    def to(self, *args, **kwargs) -> "TransformersCounter":
        """Moves the network as `Module.to` does."""
        self.model.to(*args, **kwargs)
        return self

    def check_processor(self) -> None:
        """Raise whatever its settings raise with an image, so that it comes when they are read."""
        sides = [self.processor.size.get(name) or 0 for name in ("height", "width", "shortest_edge", "longest_edge")]
        if self.processor.do_resize and max(sides) > MOST_PIXELS:
            raise ValueError(f"its processor enlarges images to {max(sides)} pixels")
        patch = getattr(self.model.config, "patch_size", 1)
        smallest = min(filter(None, sides), default=MOST_PIXELS)
        if self.processor.do_resize and isinstance(patch, int) and smallest < patch:
            raise ValueError(f"its processor shrinks images to {smallest} pixels, but the model's patches have {patch}")
        self._prepare(torch.zeros(1, 3, 16, 16))

    def _predict(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (B, queries, classes) and boxes (B, queries, 4), cxcywh in shares of the sides."""
        pixels = self._prepare(batch.to(self.model.device, self.model.dtype))
        outputs = self.model(pixel_values=pixels)
        logits = outputs.logits
        # DETR's heirs differ: one column more than classes is "no object" and means a softmax.
        softmax = logits.shape[-1] == len(self.labels) + 1
        return (logits.softmax(-1)[..., :-1] if softmax else logits.sigmoid()), outputs.pred_boxes

    def _batches(self, images: Images) -> list[tuple[torch.Tensor, list[Size]]]:
        """Batches at the processor's size, and the images' own sizes: one where all have one size, else one per image,
        as these networks do not ignore padding."""
        together = (
            isinstance(images, torch.Tensor | Image.Image) or len({getattr(one, "size", None) for one in images}) == 1
        )
        groups: list[Images] = [images] if together else [[image] for image in images]
        if not self.antialias:
            groups = [to_batch(group)[0] for group in groups]
        fitted = [fit(group, self._target, self.antialias) for group in groups]
        batches = [(to_batch(group)[0], own) for group, own in fitted]
        return [(batch, own) for batch, own in batches if len(batch)]

    def _target(self, size: Size) -> Size:
        return _target(size, self.processor.size) if self.processor.do_resize else size

    def _prepare(self, batch: torch.Tensor) -> torch.Tensor:
        """What the processor would make of a batch in [0, 1]."""
        height, width = batch.shape[-2:]
        batch = resize(batch, self._target((height, width)), self.antialias)
        if self.processor.do_normalize:
            mean, std = (
                batch.new_tensor(v)[:, None, None] for v in (self.processor.image_mean, self.processor.image_std)
            )
            batch = (batch - mean) / std
        return batch

    def _objects(self, scores, boxes, size, wanted) -> Detections:
        best, classes = scores.max(-1)
        good = (best > self.threshold) & (classes == wanted if wanted is not None else True)
        order = torch.where(good)[0][best[good].argsort(descending=True, stable=True)]
        names = [self.labels[c] for c in classes[order].tolist()]
        centre, half = boxes[order, :2], boxes[order, 2:] / 2
        corners = torch.cat([centre - half, centre + half], 1) * torch.tensor([size[1], size[0]] * 2)
        return Detections(names, clip_boxes(corners, size), best[order])


class ZeroShotCounter:
    """A `Counter` for any word, without `potential`: guide by another counter and let this one count."""

    def __init__(
        self,
        model: "PreTrainedModel",
        processor: "ProcessorMixin",
        labels: Sequence[str] = (),
        threshold: float = 0.3,
        overlap: float = 0.5,
    ):
        """labels: what to look for when `detect` is given no label. overlap: as in `YoloCounter`."""
        self.model, self.processor, self.labels = model.eval().requires_grad_(False), processor, tuple(labels)
        self.threshold, self.overlap = threshold, overlap

    @torch.no_grad()
    def detect(self, images: Images, label: str | None = None) -> list[Detections]:
        """See `Counter.detect`. Raises InputError when neither a label nor `labels` say what to look for."""
        labels = list(self.labels) if label is None else [label]
        if not labels:
            raise InputError("this detector finds any word and needs to know which: give a label")
        if isinstance(images, torch.Tensor):
            images = [_picture(one) for one in to_batch(images)[0]]
        fitted, own = fit(images, self._enough)
        to_batch(fitted)  # refuses what is no image
        return [self._find(image, size, labels) for image, size in zip(fitted, own, strict=True)]

    def to(self, *args, **kwargs) -> "ZeroShotCounter":
        """Moves the network as `Module.to` does."""
        self.model.to(*args, **kwargs)
        return self

    def _enough(self, size: Size) -> Size:
        """No larger than the processor needs: it would hold a photograph's pixels in float several times."""
        processor = self.processor.image_processor
        wanted = _target(size, processor.size) if processor.do_resize else size
        scale = min(1.0, max(wanted[0] / size[0], wanted[1] / size[1]))
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    def _find(self, picture: Image.Image, size: Size, labels: list[str]) -> Detections:
        from torchvision.ops import batched_nms

        inputs = self.processor(images=[picture], text=[labels], return_tensors="pt").to(self.model.device)
        outputs = self.model(**inputs)
        settings = {"threshold": self.threshold, "target_sizes": [size], "text_labels": [labels]}
        (found,) = self.processor.post_process_grounded_object_detection(outputs, **settings)
        meant = [_meant(text, labels) for text in found["text_labels"]]
        known = [i for i, name in enumerate(meant) if name is not None]
        boxes, scores = found["boxes"][known].float().cpu(), found["scores"][known].float().cpu()
        names = [name for name in meant if name is not None]
        classes = torch.tensor([labels.index(name) for name in names], dtype=torch.long)
        kept = batched_nms(boxes, scores, classes, self.overlap).tolist()  # several patches may see one object
        return Detections([names[i] for i in kept], clip_boxes(boxes[kept], size), scores[kept])


def open_transformers(
    source: str, threshold: float | None = None, labels: Sequence[str] = ()
) -> TransformersCounter | ZeroShotCounter:
    """A detector from a local folder or a Hub id, safetensors only; `labels` is what a zero-shot one looks for unasked.

    Raises ModelError when it cannot be opened, UnsupportedModelError when it is no detector.
    """
    from transformers import (
        MODEL_FOR_OBJECT_DETECTION_MAPPING,
        MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING,
        AutoConfig,
        AutoImageProcessor,
        AutoProcessor,
    )

    if not (Path(source).is_dir() or re.fullmatch(HUB_ID, source)):
        raise ModelError(f"unknown detector {source!r}: give a folder, a .safetensors file or a Hub id (owner/name)")
    settings = {} if threshold is None else {"threshold": threshold}
    with opening(source):
        config = AutoConfig.from_pretrained(source)
        if type(config) in MODEL_FOR_OBJECT_DETECTION_MAPPING:
            model = MODEL_FOR_OBJECT_DETECTION_MAPPING[type(config)].from_pretrained(source, use_safetensors=True)
            counter = TransformersCounter(model, AutoImageProcessor.from_pretrained(source), **settings)
            counter.check_processor()
            return counter
        if type(config) in MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING:
            kind = MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING[type(config)]
            model = kind.from_pretrained(source, use_safetensors=True)
            return ZeroShotCounter(model, AutoProcessor.from_pretrained(source), labels, **settings)
    raise UnsupportedModelError(f"{source} is a {config.model_type}, which is not an object detector")


def _target(size: tuple[int, int], wanted: Mapping[str, int]) -> tuple[int, int]:
    """(height, width) that a processor's `size` asks for: exact, or an edge's length with the proportions kept."""
    if wanted.get("height"):
        return wanted["height"], wanted["width"]
    scale = wanted["shortest_edge"] / min(size)
    if wanted.get("longest_edge"):
        scale = min(scale, wanted["longest_edge"] / max(size))
    return round(size[0] * scale), round(size[1] * scale)


def _meant(text: str, labels: list[str]) -> str | None:
    """The label that a found phrase means; Grounding DINO's may join two or leave a word out."""
    if len(labels) == 1:
        return labels[0]
    same = (label for label in labels if spelling(label) & spelling(text))
    return next(same, next((label for label in labels if label.lower() in text.lower()), None))


def _picture(tensor: torch.Tensor) -> Image.Image:
    return Image.fromarray(tensor.mul(255).round().byte().permute(1, 2, 0).cpu().numpy())
