"""A judge may not be the network that steers."""

import numpy as np
import pytest
import torch
from PIL import Image

from t2i_tools.detectors import Detections
from t2i_tools.detectors.heatmap import HeatmapCounter, HeatmapNet
from t2i_tools.errors import InputError
from t2i_tools.workflows.detectors import check_apart, draw_boxes


def heatmap(seed: int, threshold: float = 0.3) -> HeatmapCounter:
    torch.manual_seed(seed)
    return HeatmapCounter(HeatmapNet(2, (16, 24, 32)), ["cat", "dog"], threshold)


def test_the_same_weights_are_refused_whatever_the_threshold():
    with pytest.raises(InputError, match="choose another detector"):
        check_apart(heatmap(0), heatmap(0, threshold=0.7))
    check_apart(heatmap(0), heatmap(1))


class Own:
    """A detector of one's own without a network."""

    def detect(self, images, label=None):
        return []


def test_detectors_without_a_network_are_not_compared():
    check_apart(Own(), Own())


def test_boxes_with_names_and_without():
    """The name stands above its box; without it, nothing but the box is drawn."""
    image = Image.new("RGB", (64, 64), "white")
    one = Detections(["cat"], torch.tensor([[8.0, 32.0, 40.0, 56.0]]), torch.tensor([0.9]))
    for names in (True, False):
        drawn = np.asarray(draw_boxes(image, one, names=names))
        assert (drawn[30:58] != 255).any()
        assert (drawn[:28] != 255).any() == names
