import numpy as np
import pytest
import torch

from t2i_tools.detectors.detections import Detections
from t2i_tools.errors import InputError
from t2i_tools.metrics import FIGURES, cluster_bootstrap, object_columns


def seen(*objects):
    """(label, left, top, right, bottom) of each."""
    boxes = torch.tensor([one[1:] for one in objects], dtype=torch.float32).reshape(-1, 4)
    return Detections([one[0] for one in objects], boxes, torch.ones(len(objects)))


PICTURES = [
    seen(("cat", 10, 10, 20, 30), ("cat", 0.2, 40, 30, 60)),  # two of two, one of them cut at the left
    seen(("cat", 5, 5, 15, 15), ("dog", 20, 20, 30, 30), ("dog", 40, 34, 50, 63.8)),  # one of three, mostly dogs
    seen(),
]
ASKED = [2, 3, 1]


def figures(pictures, asked, size=(64, 96)):
    means = object_columns(pictures, ["cats"] * len(asked), asked, [size] * len(asked)).mean(0)
    return {name: float(figure(means)) for name, figure in FIGURES.items()}


def test_figures_by_hand():
    found = figures(PICTURES, ASKED)
    assert found["recognized"] == pytest.approx(1 / 3)
    assert found["exact"] == pytest.approx(1 / 3)
    assert found["duplication"] == pytest.approx(np.log(3 / 6))
    assert found["cut"] == pytest.approx(2 / 5)
    assert found["area"] == pytest.approx((200 + 29.8 * 20 + 100 + 100 + 298) / 5, rel=1e-6)


def test_each_side_cuts():
    for box in ((0, 5, 9, 9), (5, 0, 9, 9), (5, 5, 96, 9), (5, 5, 9, 64)):
        assert figures([seen(("cat", *box))], [1])["cut"] == 1
    assert figures([seen(("cat", 1, 1, 95, 63))], [1])["cut"] == 0


def test_nothing_found():
    found = figures([seen(), seen()], [1, 2])
    assert found["duplication"] == -np.inf
    assert np.isnan(found["cut"]) and np.isnan(found["area"])
    assert (found["recognized"], found["exact"]) == (0, 0)


def test_twice_as_many_and_its_interval():
    pictures = [seen(*[("cat", 5, 5, 9, 9)] * (2 * n)) for n in (1, 2, 3, 4)] * 5
    columns = object_columns(pictures, ["cat"] * 20, [1, 2, 3, 4] * 5, [(64, 64)] * 20)
    interval = cluster_bootstrap(columns, statistic=FIGURES["duplication"])
    assert interval.estimate == pytest.approx(np.log(2))
    assert interval.high - interval.low < 1e-9


def test_lengths_that_differ():
    with pytest.raises(InputError, match="lengths differ"):
        object_columns(PICTURES, ["cat"] * 2, ASKED, [(64, 64)] * 3)
