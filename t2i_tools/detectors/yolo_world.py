"""YOLO-World (Cheng et al. 2024) as a counter of any word that can also steer. From ultralytics, as `yolo.py` says.

The network compares what it sees with the embeddings of words by a CLIP text encoder, here one of transformers: no
weights are fetched behind the scenes.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from t2i_tools.detectors.detections import Detections, Images, to_batch
from t2i_tools.detectors.weights import fill, read_weights
from t2i_tools.detectors.yolo import MULTIPLE, YoloCounter, import_yolo
from t2i_tools.errors import InputError, ModelError, first_line
from t2i_tools.loading import opening

if TYPE_CHECKING:
    from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerBase
    from ultralytics.nn.tasks import WorldModel


class YoloWorldCounter(YoloCounter):
    """A `Guide` for any word.

    text: the CLIP text encoder that the network was trained with (ViT-B/32, 512 wide). labels: what to look for when
    `detect` is given no label.
    """

    def __init__(
        self,
        net: "WorldModel",
        text: "CLIPTextModelWithProjection",
        tokenizer: "PreTrainedTokenizerBase",
        labels: Sequence[str] = (),
        threshold: float = 0.1,
        overlap: float = 0.5,
    ):
        self.net, self.text = net.eval().requires_grad_(False), text.eval().requires_grad_(False)
        self.tokenizer, self.labels = tokenizer, tuple(labels)
        self.threshold, self.overlap = threshold, overlap

    @torch.no_grad()
    def detect(self, images: Images, label: str | None = None) -> list[Detections]:
        """See `Counter.detect`. Raises InputError when neither a label nor `labels` say what to look for."""
        names = list(self.labels) if label is None else [label]
        if not names:
            raise InputError("this detector finds any word and needs to be told which: give a label")
        batch, sizes = to_batch(images, MULTIPLE)
        if not sizes:
            return []
        predictions = self._look(batch, names)[0].float().cpu()
        return [self._suppress(one, size, None, names) for one, size in zip(predictions, sizes, strict=True)]

    def potential(self, images: Images, label: str) -> torch.Tensor:
        """See `Guide.potential`; (B,) on the images' device."""
        batch, sizes = to_batch(images, MULTIPLE)
        if not sizes:
            return torch.zeros(0)
        return self._look(batch, [label])[1]["scores"][:, 0].float().sigmoid().sum(1).to(batch.device)

    def to(self, *args, **kwargs) -> "YoloWorldCounter":
        """Moves both networks as `Module.to` does."""
        self.text.to(*args, **kwargs)
        return super().to(*args, **kwargs)

    def save(self, path: str | os.PathLike) -> None:
        """Raises InputError: the network's own file and its CLIP are what there is to keep."""
        raise InputError("a YOLO-World is two models: keep its .safetensors file and its CLIP")

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        clip: str | os.PathLike,
        architecture: str | os.PathLike = "yolov8s-worldv2.yaml",
        labels: Sequence[str] = (),
        threshold: float | None = None,
    ) -> "YoloWorldCounter":
        """Weights in safetensors. clip: folder or Hub id of the text encoder ("openai/clip-vit-base-patch32").

        Raises ModelError when a file is missing, broken, or does not fit.
        """
        from transformers import AutoTokenizer, CLIPTextModelWithProjection

        tensors, _ = read_weights(path)
        net = fill(build_yolo_world(architecture), tensors, path)
        with opening(clip):
            text = CLIPTextModelWithProjection.from_pretrained(clip, use_safetensors=True)
            tokenizer = AutoTokenizer.from_pretrained(clip)
        given = {} if threshold is None else {"threshold": threshold}
        return cls(net, text, tokenizer, labels, **given)

    def _look(self, batch: torch.Tensor, names: list[str]):
        self.net.model[-1].nc = len(names)
        weight = next(self.net.parameters())
        with torch.inference_mode(False):  # YOLO caches its anchors: they must serve autograd too
            return self.net.predict(batch.to(weight.device, weight.dtype), txt_feats=self._embed(names))

    @torch.no_grad()
    def _embed(self, names: list[str]) -> torch.Tensor:
        """(1, k, 512), of length 1."""
        length = self.text.config.max_position_embeddings
        inputs = self.tokenizer(names, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        ids, mask = (inputs[name].to(self.text.device) for name in ("input_ids", "attention_mask"))
        return F.normalize(self.text(input_ids=ids, attention_mask=mask).text_embeds, dim=-1)[None]


def build_yolo_world(architecture: str | os.PathLike) -> "WorldModel":
    """An untrained network of one of ultralytics' yamls by name ("yolov8s-worldv2.yaml") or a file.

    Raises UnsupportedModelError without ultralytics, ModelError for a yaml that describes no YOLO-World.
    """
    tasks = import_yolo()
    try:
        net = tasks.WorldModel(os.fspath(architecture), verbose=False)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise ModelError(f"{architecture} describes no YOLO-World: {first_line(error)}") from error
    if type(net.model[-1]).__name__ != "WorldDetect":
        raise ModelError(f"{architecture} describes no YOLO-World: its head compares with no words")
    return net
