"""A YOLO that finds any word: it compares what it sees with the words' embeddings by a CLIP text encoder.

That encoder is one of transformers, given beside the network: no weights are fetched behind the scenes.
"""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from t2i_tools.detectors.architecture import Architecture, building, import_yolo, read_architecture
from t2i_tools.detectors.detections import Detections, Images
from t2i_tools.detectors.fitting import restore
from t2i_tools.detectors.weights import read_weights
from t2i_tools.detectors.yolo import IMAGE_SIZE, Answer, YoloCounter, fill_yolo
from t2i_tools.errors import InputError, ModelError
from t2i_tools.models.loading import opening

if TYPE_CHECKING:
    from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerBase
    from ultralytics.nn.tasks import DetectionModel


class OpenYoloCounter(YoloCounter):
    """A `Guide` for any word; its kinds say how the network is built and given the words.

    text: the text encoder that the network was trained with, 512 wide. labels: what to look for when `detect` is given
    no label.
    """

    kind: str
    usual: str  # architecture
    build: "Callable[[Architecture], DetectionModel]"

    def __init__(
        self,
        net: "DetectionModel",
        text: "CLIPTextModelWithProjection",
        tokenizer: "PreTrainedTokenizerBase",
        labels: Sequence[str] = (),
        threshold: float = 0.1,
        overlap: float = 0.5,
        image_size: int = IMAGE_SIZE,
    ):
        net.end2end = False  # the many-to-one head is the one whose raw scores count
        self.net, self.text = net.eval().requires_grad_(False), text.eval().requires_grad_(False)
        self.tokenizer, self.labels = tokenizer, tuple(labels)
        self.threshold, self.overlap, self.image_size = threshold, overlap, image_size

    @torch.no_grad()
    def detect(self, images: Images, label: str | None = None) -> list[Detections]:
        """See `Counter.detect`. Raises InputError when neither a label nor `labels` say what to look for."""
        names = list(self.labels) if label is None else [label]
        if not names:
            raise InputError("this detector finds any word and needs to know which: give a label")
        batch, sizes, own = self._fit(images)
        if not sizes:
            return []
        return restore(self._objects(self._look(batch, names), sizes, None, names), sizes, own)

    def potential(self, images: Images, label: str) -> torch.Tensor:
        """See `Guide.potential`; (B,) on the images' device."""
        batch, sizes, _ = self._fit(images)
        if not sizes:
            return torch.zeros(0)
        return self._sum(self._look(batch, [label]), 0).to(batch.device)

    def examine(self, images: Images, label: str) -> tuple[list[Detections], torch.Tensor]:
        """`detect` and `potential` by one pass."""
        batch, sizes, own = self._fit(images)
        if not sizes:
            return [], torch.zeros(0)
        answer = self._look(batch, [label])
        found = restore(self._objects(answer, sizes, None, [label]), sizes, own)
        return found, self._sum(answer, 0).to(batch.device)

    def to(self, *args: Any, **kwargs: Any) -> "OpenYoloCounter":
        """Moves both networks as `Module.to` does."""
        self.text.to(*args, **kwargs)
        super().to(*args, **kwargs)
        return self

    def save(self, path: str | os.PathLike) -> None:
        """Raises InputError: the network's own file and its CLIP are what there is to keep."""
        raise InputError(f"a {self.kind} is two models: keep its .safetensors file and its CLIP")

    @classmethod
    def load(  # type: ignore[override]  # it takes a CLIP as well, and no class opens another's files
        cls,
        path: str | os.PathLike,
        clip: str | os.PathLike,
        architecture: Architecture | None = None,
        labels: Sequence[str] = (),
        threshold: float | None = None,
        image_size: int | None = None,
    ) -> "OpenYoloCounter":
        """Weights in safetensors. clip: folder or Hub id of the text encoder. architecture: a yaml; from the header of
        the weights, or `usual`, when None.

        Raises ModelError when a file is missing, broken, or does not fit.
        """
        from transformers import AutoTokenizer, CLIPTextModelWithProjection

        tensors, about = read_weights(path)
        net = fill_yolo(cls.build(architecture or about.get("architecture") or cls.usual), tensors, path)
        with opening(os.fspath(clip)):
            text = CLIPTextModelWithProjection.from_pretrained(clip, use_safetensors=True)
            tokenizer = AutoTokenizer.from_pretrained(clip)
        settings = {"threshold": threshold, "image_size": image_size or about.get("image_size")}
        known: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
        return cls(net, text, tokenizer, labels, **known)

    def _look(self, batch: torch.Tensor, names: list[str]) -> Answer:
        """The network's answer."""
        weight = next(self.net.parameters())
        with torch.inference_mode(False):  # YOLO caches its anchors: they must serve autograd too
            return self._predict(batch.to(weight.device, weight.dtype), self._embed(names).to(weight))

    def _predict(self, batch: torch.Tensor, words: torch.Tensor) -> Answer:
        """The network called with the embeddings of the words (1, k, 512)."""
        raise NotImplementedError

    @torch.no_grad()
    def _embed(self, names: list[str]) -> torch.Tensor:
        """(1, k, 512), of length 1."""
        length = self.text.config.max_position_embeddings
        inputs = self.tokenizer(names, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        ids, mask = (inputs[name].to(self.text.device) for name in ("input_ids", "attention_mask"))
        return F.normalize(self.text(input_ids=ids, attention_mask=mask).text_embeds, dim=-1)[None]


def build_open_yolo(model: str, architecture: Architecture, kind: str, head: str) -> "DetectionModel":
    """An untrained `ultralytics.nn.tasks.<model>`. Raises ModelError unless its yaml gives it a head of that class."""
    tasks = import_yolo()
    settings = read_architecture(architecture, kind)
    with building(architecture, kind):
        net = getattr(tasks, model)(settings, verbose=False)
    if head not in [one.__name__ for one in type(net.model[-1]).__mro__]:
        raise ModelError(f"{net.yaml['yaml_file']} describes no {kind}: its head compares with no words")
    return net
