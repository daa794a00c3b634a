"""A photograph of 24 megapixels is shrunk to what a detector was trained for; its boxes are in its own pixels."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import pytest
import torch
from PIL import Image, ImageDraw
from support import tiny_detectors
from torch import nn

from t2i_tools.detectors import TransformersCounter, ZeroShotCounter
from t2i_tools.detectors.heatmap import HeatmapCounter, HeatmapNet


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    image = Image.new("RGB", (6000, 4000), "gray")
    ImageDraw.Draw(image).ellipse((1500, 1000, 3500, 3000), "red")
    return image


@contextmanager
def pixels_seen(net: nn.Module) -> Iterator[list[int]]:
    """The pixels of each tensor that comes into a network, or into a part that is given images."""
    seen: list[int] = []

    def note(module, args, kwargs):
        tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.Tensor) and one.ndim == 4]
        seen.extend(one.shape[0] * one.shape[-2] * one.shape[-1] for one in tensors if one.shape[1] == 3)

    hook = net.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def check(counter, net: nn.Module, most: int, image: Image.Image, label: str | None = None) -> None:
    with pixels_seen(net) as seen:
        (found,) = counter.detect([image], label)
    assert 0 < max(seen) <= most
    assert found.count > 0
    assert (found.boxes >= 0).all()
    assert (found.boxes <= torch.tensor([6000.0, 4000.0] * 2)).all()
    assert found.boxes[:, 2].max() > 1000  # in the photograph's own pixels


def test_the_heatmap(photograph):
    torch.manual_seed(0)
    counter = HeatmapCounter(HeatmapNet(2, (16, 24, 32)), ["apple", "ball"], 0.0)
    check(counter, counter.net, (256 + 16) ** 2, photograph)


@pytest.mark.skipif(not find_spec("ultralytics"), reason="needs the extra count")
def test_a_yolo_at_its_own_size_and_by_the_gradient(photograph):
    from t2i_tools.detectors.yolo import YoloCounter, build_yolo

    torch.manual_seed(0)
    net, _ = build_yolo("yolo11n.yaml", 2)
    counter = YoloCounter(net, ["cat", "dog"], 0.0, image_size=128)
    check(counter, counter.net, 160 * 128 * 2, photograph)
    with pixels_seen(counter.net) as seen:
        images = torch.rand(1, 3, 512, 768, requires_grad=True)
        counter.potential(images, "cat").sum().backward()
    assert max(seen) <= 160 * 128 * 2
    assert images.grad.abs().max() > 0


@pytest.mark.parametrize("build", tiny_detectors.CLOSED, ids=lambda build: build.__name__)
def test_closed_classes_of_transformers(build, photograph):
    torch.manual_seed(0)
    counter = TransformersCounter(*build(), threshold=0.0)
    check(counter, counter.model, 64 * 96, photograph)


@pytest.mark.parametrize("build", tiny_detectors.OPEN, ids=lambda build: build.__name__)
def test_any_word_of_transformers(build, photograph):
    torch.manual_seed(0)
    counter = ZeroShotCounter(*build(), threshold=0.0)
    given = []
    process = counter.processor.image_processor.preprocess

    def note(images, **settings):
        given.append(images[0].size)
        return process(images, **settings)

    counter.processor.image_processor.preprocess = note
    check(counter, counter.model, 64 * 96, photograph, "cat")
    assert given == [] or max(given[0]) <= 96
