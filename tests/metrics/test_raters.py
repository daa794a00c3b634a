import numpy as np
import pytest
from scipy import stats

from t2i_tools.errors import InputError
from t2i_tools.metrics import agreement, corrected_accuracy

# A judge that loses one object in ten and sometimes sees one too many: P(found p | g are there), 0 to 4 "or more".
JUDGE = np.array(
    [
        [0.95, 0.05, 0.0, 0.0, 0.0],
        [0.05, 0.9, 0.05, 0.0, 0.0],
        [0.0, 0.15, 0.8, 0.05, 0.0],
        [0.0, 0.0, 0.2, 0.75, 0.05],
        [0.0, 0.0, 0.05, 0.25, 0.7],
    ]
)


def test_known_confusion_is_undone_exactly():
    true = np.repeat([1, 2, 3], [10, 80, 30])  # of 120 pictures where 2 were asked for
    found = np.repeat(np.arange(5), np.rint(20 * JUDGE[true].sum(axis=0)).astype(int))  # as often as the judge would
    asked = np.full(len(found), 2)
    calibration = np.rint(2000 * JUDGE).astype(int)
    interval = corrected_accuracy(asked, found, calibration, resamples=99)
    assert (found == 2).mean() == pytest.approx(0.591, abs=0.01)
    assert interval.estimate == pytest.approx(80 / 120)
    error = corrected_accuracy(asked, found, calibration, score=lambda g, n: abs(g - n), resamples=99)
    assert error.estimate == pytest.approx(40 / 120)


def test_two_outcomes_are_rogan_and_gladens():
    calibration = [[90, 10], [20, 80]]  # specificity 0.9, sensitivity 0.8
    found = np.repeat([1, 0], [45, 55])
    interval = corrected_accuracy(np.ones(100), found, calibration)
    assert interval.estimate == pytest.approx((0.45 + 0.9 - 1) / (0.8 + 0.9 - 1))
    variance = 0.45 * 0.55 / 100 + 0.5**2 * 0.8 * 0.2 / 100 + 0.5**2 * 0.9 * 0.1 / 100  # delta method
    assert interval.high - interval.low == pytest.approx(2 * 1.984 * variance**0.5 / 0.7, rel=0.15)


def test_a_perfect_judge_changes_nothing():
    rng = np.random.default_rng(0)
    asked = rng.integers(1, 6, 200)
    found = asked + rng.integers(0, 2, 200)
    interval = corrected_accuracy(asked, found, 50 * np.eye(8, dtype=int))
    assert interval.estimate == pytest.approx((asked == found).mean())


def simulate(rng, calibration_pictures: int, prompts: int) -> bool:
    """Whether the interval holds the expected accuracy, prompts differing in difficulty and three seeds each."""
    asked = np.repeat(rng.integers(1, 4, prompts), 3)
    easy = np.repeat(rng.beta(4, 2, prompts), 3)  # mean 2/3
    off = rng.choice([-1, 1], len(asked))
    true = np.where(rng.random(len(asked)) < easy, asked, asked + off)
    found = (rng.random((len(true), 1)) > JUDGE[true].cumsum(axis=1)).sum(axis=1).clip(max=4)
    calibration = rng.multinomial(calibration_pictures, JUDGE)
    interval = corrected_accuracy(asked, found, calibration, np.repeat(np.arange(prompts), 3), resamples=299)
    return interval.low <= 2 / 3 <= interval.high


@pytest.mark.parametrize("calibration_pictures", [60, 400])
def test_the_interval_covers_the_truth(calibration_pictures):
    rng = np.random.default_rng(7)
    covered = sum(simulate(rng, calibration_pictures, 60) for _ in range(100))
    assert covered >= stats.binom.ppf(0.01, 100, 0.95)


@pytest.mark.slow
@pytest.mark.parametrize("calibration_pictures", [60, 400])
def test_the_interval_covers_the_truth_within_two_points(calibration_pictures):
    rng = np.random.default_rng(7)
    assert abs(np.mean([simulate(rng, calibration_pictures, 60) for _ in range(3000)]) - 0.95) < 0.02


def test_agreement_by_hand():
    first, second = np.repeat([0, 0, 1, 1], [20, 5, 10, 15]), np.repeat([0, 1, 0, 1], [20, 5, 10, 15])
    result = agreement(first, second)
    assert result.same == 0.7
    assert result.kappa.estimate == pytest.approx(0.4)
    assert result.kappa.low < 0.4 < result.kappa.high
    assert result.confusion.tolist() == [[20, 5], [10, 15]]
    assert agreement([1, 2, 4], [1, 2, 4]).kappa.estimate == 1
    assert np.isnan(agreement([2, 2], [2, 2]).kappa.estimate)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: corrected_accuracy([], [], np.eye(3)), "empty"),
        (lambda: corrected_accuracy([1], [1, 2], np.eye(3)), "lengths differ"),
        (lambda: corrected_accuracy([5, 1], [1, 2], np.eye(3)), "calibration ends at 2"),
        (lambda: corrected_accuracy([1, 1], [1, 2], np.eye(3)[:2]), "square"),
        (lambda: corrected_accuracy([1, 1], [1, 2], np.diag([5, 0, 5])), "images of 1 objects"),
        (lambda: corrected_accuracy([1, 1], [1, 2], np.full((3, 3), 4)), "hardly depends"),
        (lambda: corrected_accuracy([1, 1], [1, 2], np.eye(3), "aa"), "only one cluster"),
        (lambda: agreement([1], [1, 2]), "lengths differ"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, says):
    with pytest.raises(InputError, match=says) as error:
        call()
    assert "\n" not in str(error.value)
