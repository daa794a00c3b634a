"""A judge may not be the network that steers."""

import pytest
import torch

from t2i_tools.detectors.heatmap import HeatmapCounter, HeatmapNet
from t2i_tools.errors import InputError
from t2i_tools.workflows.detectors import check_apart


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
