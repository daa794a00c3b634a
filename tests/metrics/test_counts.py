import numpy as np
import pytest
import torch

from t2i_tools.detectors.detections import Detections
from t2i_tools.errors import InputError
from t2i_tools.metrics import METRICS, confusion_matrix, count_metrics, found_counts, threshold_sweep


def test_figures_of_a_case_worked_by_hand():
    figures = count_metrics([1, 2, 4, 5], [1, 3, 2, 5], others=[0, 1, 0, 2])
    assert figures == pytest.approx(
        {
            "exact": 0.5,
            "exact_alone": 0.25,
            "off_by_one": 0.75,
            "mae": 0.75,
            "rmse": 1.25**0.5,
            "normalized_mae": (1 / 2 + 2 / 4) / 4,
            "bias": -0.25,
            "precision": 10 / (10 + 1 + 3),
            "recall": 10 / 12,
            "f1": 20 / (20 + 1 + 3 + 2),
        }
    )
    assert "exact_alone" not in count_metrics([1], [1])


def test_where_there_is_nothing_nothing_is_wrong():
    figures = count_metrics([0, 0], [0, 0])
    assert figures["precision"] == figures["recall"] == figures["f1"] == figures["exact"] == 1
    assert count_metrics([3], [0])["f1"] == count_metrics([3], [0])["recall"] == 0


def test_columns_and_value_give_the_figure():
    rng = np.random.default_rng(0)
    g, p = rng.integers(0, 9, (2, 50))
    for name, metric in METRICS.items():
        assert metric.value(metric.columns(g, p).mean(axis=0)) == metric(g, p), name
        stacked = np.stack([metric.columns(g, p).mean(axis=0)] * 3)
        assert metric.value(stacked).shape == (3,), name


def test_a_fake_detector_of_known_confusion_is_recovered_exactly():
    known = np.array([[9, 1, 0, 0], [1, 7, 2, 0], [0, 2, 5, 3], [0, 0, 4, 6]])
    true, found = (index.repeat(known.ravel()) for index in np.indices(known.shape).reshape(2, -1))
    assert (confusion_matrix(true, found) == known).all()
    figures, e = count_metrics(true, found), np.arange(4)[None] - np.arange(4)[:, None]
    share = known / known.sum()
    assert figures["exact"] == pytest.approx(np.trace(share))
    assert figures["mae"] == pytest.approx((share * abs(e)).sum())
    assert figures["rmse"] == pytest.approx((share * e**2).sum() ** 0.5)
    assert figures["bias"] == pytest.approx((share * e).sum())
    assert figures["recall"] == pytest.approx(1 - (share * np.maximum(-e, 0)).sum() / (share.sum(1) @ np.arange(4)))


def test_the_last_row_and_column_mean_that_many_or_more():
    assert confusion_matrix([1, 5, 2], [7, 2, 2], largest=2).tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2]]


def detections(*scored: tuple[str, float]) -> Detections:
    labels, scores = [s[0] for s in scored], torch.tensor([s[1] for s in scored], dtype=torch.float32)
    return Detections(labels, torch.zeros(len(labels), 4), scores)


def test_counts_from_detections():
    found = [detections(("cat", 0.9), ("dog", 0.3), ("cat", 0.2)), detections()]
    asked, others = found_counts(found, ["cats", "dog"])
    assert asked.tolist() == [2, 0] and others.tolist() == [1, 0]
    asked, others = found_counts(found, ["cats", "dog"], threshold=0.3)
    assert asked.tolist() == [1, 0] and others.tolist() == [1, 0]


def test_the_sweep_counts_as_the_detector_would():
    rng = np.random.default_rng(0)
    found = [detections(*[("cat", s) for s in rng.random(k)]) for k in rng.integers(0, 9, 30)]
    true = rng.integers(0, 6, 30)
    sweep = threshold_sweep(found, true, ["cat"] * 30)
    for t, exact, mae, bias in zip(sweep.thresholds, sweep.exact, sweep.mae, sweep.bias, strict=True):
        figures = count_metrics(true, found_counts(found, ["cat"] * 30, threshold=t)[0])
        assert (exact, mae, bias) == pytest.approx((figures["exact"], figures["mae"], figures["bias"]))
    best = sweep.thresholds == sweep.best
    assert sweep.exact[best] == sweep.exact.max()


def test_a_score_at_the_threshold_counts():
    sweep = threshold_sweep([detections(("cat", 0.3))], [1], thresholds=[0.1, 0.3, 0.31])
    assert sweep.exact.tolist() == [1, 1, 0]
    assert sweep.best == 0.1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: count_metrics([], []), "empty"),
        (lambda: count_metrics([1, 2], [1]), "lengths differ: 2 true counts, 1 found counts"),
        (lambda: count_metrics([1], [-1]), "whole numbers from 0 on, not -1"),
        (lambda: count_metrics([1], [1.5]), "not 1.5"),
        (lambda: count_metrics([1], [float("nan")]), "not finite"),
        (lambda: count_metrics([[1, 2]], [[1, 2]]), "one-dimensional"),
        (lambda: count_metrics(["one"], [1]), "not numbers"),
        (lambda: confusion_matrix([1], [1], largest=0), "at least 1"),
        (lambda: threshold_sweep([], []), "empty"),
        (lambda: threshold_sweep([detections()], [1, 2]), "lengths differ"),
        (lambda: found_counts([detections()], []), "lengths differ"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, says):
    with pytest.raises(InputError, match=says) as error:
        call()
    assert "\n" not in str(error.value)
