import pytest
import torch
from support.shared import copied

from t2i_tools.detectors import Detections, YoloCounter, find_label, to_batch
from t2i_tools.detectors.yolo import build_yolo


class Brightness:
    """A counter whose truth is known: as many apples as the picture's left is bright, balls as its right is.

    The potential is `per_object` for each of them, so that the scale has something to find.
    """

    labels = ("apple", "ball")

    def __init__(self, most=40.0, per_object=3.0):
        self.most, self.per_object = most, per_object

    def detect(self, images, label=None):
        wanted = range(2) if label is None else [find_label(label, self.labels)]
        return [self._detections([int(float(v)) for v in row], wanted) for row in self._counts(to_batch(images)[0])]

    def potential(self, images, label):
        return self._counts(to_batch(images)[0])[:, find_label(label, self.labels)] * self.per_object

    def _counts(self, batch):
        return torch.stack([half.mean((1, 2, 3)) for half in batch.chunk(2, dim=-1)], 1) * self.most

    def _detections(self, counts, wanted):
        names = [self.labels[i] for i in wanted for _ in range(counts[i])]
        return Detections(names, torch.zeros(len(names), 4), torch.ones(len(names)))


@pytest.fixture
def brightness():
    return Brightness()


@pytest.fixture(scope="session")
def yolo():
    """A real YOLO with random weights, which sees a few objects in anything."""
    torch.manual_seed(0)
    net, _ = build_yolo("yolo11n.yaml", 2)
    return YoloCounter(net, ("apple", "ball"), threshold=0.001)


@pytest.fixture
def pipe():
    """A tiny Stable Diffusion."""
    return copied("stable_diffusion")
