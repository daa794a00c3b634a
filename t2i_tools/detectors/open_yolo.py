"""A YOLO that finds any word: it compares what it sees with the words' embeddings by a CLIP text encoder.

That encoder is one of transformers, given beside the network: no weights are fetched behind the scenes.
"""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from t2i_tools.detectors.detections import Detections, Images, to_batch
from t2i_tools.detectors.weights import fill, read_weights
from t2i_tools.detectors.yolo import MULTIPLE, Answer, YoloCounter, import_yolo
from t2i_tools.errors import InputError, ModelError, first_line
from t2i_tools.loading import opening

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
    build: "Callable[[str | os.PathLike], DetectionModel]"

    def __init__(
        self,
        net: "DetectionModel",
        text: "CLIPTextModelWithProjection",
        tokenizer: "PreTrainedTokenizerBase",
        labels: Sequence[str] = (),
        threshold: float = 0.1,
        overlap: float = 0.5,
    ):
        net.end2end = False  # the many-to-one head is the one whose raw scores count
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
        return self._objects(self._look(batch, names), sizes, None, names)

    def potential(self, images: Images, label: str) -> torch.Tensor:
        """See `Guide.potential`; (B,) on the images' device."""
        batch, sizes = to_batch(images, MULTIPLE)
        if not sizes:
            return torch.zeros(0)
        return self._sum(self._look(batch, [label]), 0).to(batch.device)

    def examine(self, images: Images, label: str) -> tuple[list[Detections], torch.Tensor]:
        """`detect` and `potential` by one pass."""
        batch, sizes = to_batch(images, MULTIPLE)
        if not sizes:
            return [], torch.zeros(0)
        answer = self._look(batch, [label])
        return self._objects(answer, sizes, None, [label]), self._sum(answer, 0).to(batch.device)

    def to(self, *args, **kwargs) -> "OpenYoloCounter":
        """Moves both networks as `Module.to` does."""
        self.text.to(*args, **kwargs)
        return super().to(*args, **kwargs)

    def save(self, path: str | os.PathLike) -> None:
        """Raises InputError: the network's own file and its CLIP are what there is to keep."""
        raise InputError(f"a {self.kind} is two models: keep its .safetensors file and its CLIP")

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        clip: str | os.PathLike,
        architecture: str | os.PathLike | None = None,
        labels: Sequence[str] = (),
        threshold: float | None = None,
    ) -> "OpenYoloCounter":
        """Weights in safetensors. clip: folder or Hub id of the text encoder. architecture: a yaml, `usual` when None.

        Raises ModelError when a file is missing, broken, or does not fit.
        """
        from transformers import AutoTokenizer, CLIPTextModelWithProjection

        tensors, _ = read_weights(path)
        net = fill(cls.build(architecture or cls.usual), tensors, path)
        with opening(clip):
            text = CLIPTextModelWithProjection.from_pretrained(clip, use_safetensors=True)
            tokenizer = AutoTokenizer.from_pretrained(clip)
        given = {} if threshold is None else {"threshold": threshold}
        return cls(net, text, tokenizer, labels, **given)

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


def build_open_yolo(model: str, architecture: str | os.PathLike, kind: str, head: str) -> "DetectionModel":
    """An untrained `ultralytics.nn.tasks.<model>`. Raises ModelError unless its yaml gives it a head of that class."""
    tasks = import_yolo()
    try:
        net = getattr(tasks, model)(os.fspath(architecture), verbose=False)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise ModelError(f"{architecture} describes no {kind}: {first_line(error)}") from error
    if head not in [one.__name__ for one in type(net.model[-1]).__mro__]:
        raise ModelError(f"{architecture} describes no {kind}: its head compares with no words")
    return net
