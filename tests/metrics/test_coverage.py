"""By simulation: intervals hold the truth as often as they say, tests of no difference err as often as they say."""

import numpy as np
import pytest
from scipy import stats

from t2i_tools.metrics import (
    METRICS,
    cluster_bootstrap,
    equivalence,
    nested_bootstrap,
    paired_bootstrap,
    paired_shares,
    paired_test,
    share,
)
from t2i_tools.metrics.intervals import RarePairs

ROOT = METRICS["rmse"].value


def shares(rng, prompts: int, seeds: int) -> np.ndarray:
    """(prompts, seeds) right or wrong, some prompts easier than others: Beta(2, 2), mean 1/2."""
    return (rng.random((prompts, seeds)) < rng.beta(2, 2, (prompts, 1))).astype(float)


def covers(interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def clustered(rng) -> bool:
    x = shares(rng, 40, 4)
    return covers(cluster_bootstrap(x.ravel(), np.repeat(np.arange(40), 4), resamples=499), 0.5)


def few_clusters(rng) -> bool:
    x = rng.normal(size=(12, 1)) + rng.normal(size=(12, 5))  # 12 classes
    return covers(cluster_bootstrap(x.ravel(), np.repeat(np.arange(12), 5), resamples=499), 0)


def root_mean_square(rng) -> bool:
    x = rng.normal(size=(60, 2)) ** 2
    return covers(cluster_bootstrap(x.ravel(), np.repeat(np.arange(60), 2), statistic=ROOT, resamples=499), 1)


def paired(rng) -> bool:
    p = rng.beta(2, 2, (40, 1))
    a, b = (rng.random((2, 40, 3)) < np.stack([p, p * 0.8])).astype(float)
    return covers(paired_bootstrap(a.ravel(), b.ravel(), np.repeat(np.arange(40), 3), resamples=499), 0.1)


def kept_null(rng) -> bool:
    a, b = rng.random((2, 30, 3)) + rng.random((30, 1)) * np.array([1, -1])[:, None, None]
    return paired_test(a.ravel(), b.ravel() + 1, np.repeat(np.arange(30), 3), resamples=499) > 0.05


def kept_difference(rng) -> bool:
    """At the margin itself TOST must call it equivalence in 5 % only."""
    d = 0.3 + rng.normal(size=(25, 1)) * 0.2 + rng.normal(size=(25, 4)) * 0.3
    return not equivalence(d.ravel(), np.zeros(100), 0.3, np.repeat(np.arange(25), 4)).equivalent


CASES = [clustered, few_clusters, root_mean_square, paired, kept_null, kept_difference]


def coverage(case, simulations: int) -> float:
    rng = np.random.default_rng(12345)
    return float(np.mean([case(rng) for _ in range(simulations)]))


@pytest.mark.parametrize("case", CASES)
def test_coverage_is_nominal(case):
    assert abs(coverage(case, 200) - 0.95) < 0.045  # three standard errors of 200 simulations


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_coverage_is_nominal_within_two_points(case):
    assert abs(coverage(case, 3000) - 0.95) < 0.02


def five_unequal(rng) -> bool:
    sizes = np.array([2, 4, 8, 16, 30])
    groups = np.repeat(np.arange(5), sizes)
    x = rng.normal(size=5)[groups] + rng.normal(size=60)
    return covers(cluster_bootstrap(x, groups, resamples=499), 0)


def nearly_all_right(rng) -> bool:
    x = (rng.random((30, 4)) < rng.beta(19, 1, (30, 1))).astype(float)
    return covers(share(x.ravel(), np.repeat(np.arange(30), 4)), 0.95)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "stated"), [(five_unequal, 0.90), (nearly_all_right, 0.93)])
def test_coverage_where_the_documentation_says_it_falls_short(case, stated):
    assert abs(coverage(case, 1500) - stated) < 0.025


@pytest.mark.slow
def test_two_levels_are_never_too_short():
    def case(rng):
        x = shares(rng, 40, 4)
        return covers(nested_bootstrap(x.ravel(), [np.repeat(np.arange(40), 4)], resamples=499), 0.5)

    assert coverage(case, 1000) > 0.95


@pytest.mark.parametrize("n", [12, 40, 150])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_bounds_of_rare_pairs_are_exact(n, level):
    """Each bound alone, over all outcomes in which few pairs differ: missed no more often than it says."""
    few = range(10)
    outcomes = [(i, j) for i in few for j in few if i + j < 10 and i + j <= n]
    bounds = [RarePairs((i - j) / n, i, j, n, single=True).interval(level) for i, j in outcomes]
    shares = [0, 0.001, 0.01, 0.03, 0.1, 0.3, 0.7]
    for p, q in [(p, q) for p in shares for q in shares if p + q < 1]:
        chances = np.array([stats.multinomial.pmf([i, j, n - i - j], n, [p, q, 1 - p - q]) for i, j in outcomes])
        missed = np.array([(one.low > p - q + 1e-12, one.high < p - q - 1e-12) for one in bounds])
        assert (chances @ missed).max() <= (1 - level) / 2


def test_rare_pairs_show_what_the_sign_test_shows():
    a, b = np.zeros((2, 60))
    a[:8] = 1
    assert paired_shares(a, b).low > 0
    assert paired_shares(b, a).high < 0
    a[5:8] = 0  # five of five: p = 0.06
    assert paired_shares(a, b).low < 0
    clusters = np.arange(60) // 2
    assert paired_shares(np.repeat([1.0, 0.0], [8, 52]), b, clusters).low < 0  # four clusters
