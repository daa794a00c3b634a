import numpy as np
import pytest
from scipy import stats

from t2i_tools.errors import InputError
from t2i_tools.metrics import (
    METRICS,
    Interval,
    cluster_bootstrap,
    nested_bootstrap,
    paired_bootstrap,
    paired_shares,
    share,
    stratified_bootstrap,
    wilson,
)
from t2i_tools.metrics.intervals import widened


def test_wilson_is_scipys():
    for k, n, level in [(0, 10, 0.95), (7, 20, 0.9), (120, 120, 0.99)]:
        expected = stats.binomtest(k, n).proportion_ci(level, method="wilson")
        interval = wilson(k, n, level=level)
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert (interval.estimate, interval.n) == (k / n, n)


def test_wilson_covers():
    n, level = 60, 0.95
    low, high = np.array([(i.low, i.high) for i in (wilson(k, n, level=level) for k in range(n + 1))]).T
    shares = np.linspace(0.1, 0.9, 161)[:, None]
    covered = (stats.binom.pmf(np.arange(n + 1), n, shares) * ((low <= shares) & (shares <= high))).sum(axis=1)
    assert abs(covered.mean() - level) < 0.01


def test_a_share_has_bounds_also_where_all_are_right():
    x, tens = np.random.default_rng(0).random(40) < 0.8, np.arange(40) // 4
    assert share(x) == wilson(int(x.sum()), 40)
    assert share(x, tens) == cluster_bootstrap(x, tens)
    assert share(np.ones(40), tens) == wilson(10, 10)
    assert share(np.zeros(4), "aaaa") == wilson(0, 1)
    assert np.isnan(share([0, 1], "aa").low)


def test_paired_shares_are_exact_where_few_pairs_differ():
    """Up to nine clusters; from the tenth on resampled."""
    a, b, twos = np.zeros(200), np.zeros(200), np.arange(200) // 2
    a[:10:2], b[10:18:2] = 1, 1  # five clusters for a, four for b
    low, high = (stats.binomtest(k, 100).proportion_ci(0.95, "exact").high for k in (4, 5))
    interval = paired_shares(a, b, twos)
    assert (interval.low, interval.high) == pytest.approx((-low, high))
    assert (interval.estimate, interval.n) == (pytest.approx(1 / 200), 100)
    b[18] = 1
    assert paired_shares(a, b, twos) == paired_bootstrap(a, b, twos)


def test_many_clusters_of_one_give_the_t_interval():
    x = np.random.default_rng(0).normal(size=400)
    low, high = stats.t.interval(0.95, 399, x.mean(), stats.sem(x))
    interval = cluster_bootstrap(x)
    assert interval.estimate == pytest.approx(x.mean())
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.008)
    assert interval.n == 400


def test_what_is_copied_is_no_evidence():
    x = np.random.default_rng(0).normal(size=30)
    once, copied = cluster_bootstrap(x), cluster_bootstrap(np.repeat(x, 8), np.repeat(np.arange(30), 8))
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    two = nested_bootstrap(np.repeat(x, 8), [np.repeat(np.arange(30), 8)])
    assert (two.low, two.high) == pytest.approx((once.low, once.high), abs=0.04)


def test_few_clusters_are_widened_as_t_says():
    assert widened(0.95, 10**6) == pytest.approx(0.95, abs=1e-4)
    z = stats.norm.ppf((1 + widened(0.9, 5)) / 2)
    assert z == pytest.approx(stats.t.ppf(0.95, 4) * (5 / 4) ** 0.5)
    interval = cluster_bootstrap([0, 1, 1, 0, 1, 1], ["a", "a", "a", "b", "b", "b"], resamples=99)
    assert interval.low <= interval.estimate <= interval.high


@pytest.mark.parametrize("name", ["rmse", "f1", "precision"])
def test_a_figure_that_is_no_mean_is_resampled_as_one_would_by_hand(name):
    rng = np.random.default_rng(1)
    g, p = rng.integers(1, 9, 120), rng.integers(0, 9, 120)
    prompts = rng.integers(0, 25, 120)
    metric = METRICS[name]
    interval = cluster_bootstrap(metric.columns(g, p), prompts, statistic=metric.value)
    assert interval.estimate == pytest.approx(metric(g, p))
    members = [np.flatnonzero(prompts == k) for k in np.unique(prompts)]
    drawn = [np.concatenate([members[k] for k in rng.integers(len(members), size=len(members))]) for _ in range(800)]
    figures = [metric(g[i], p[i]) for i in drawn]
    tail = (1 - widened(0.95, len(members))) / 2
    expected = np.quantile(figures, [tail, 1 - tail])
    assert (interval.low, interval.high) == pytest.approx(expected, abs=0.25 * np.ptp(expected))
    assert interval.n == len(members)


def test_pairs_are_drawn_together():
    rng = np.random.default_rng(0)
    hard, prompts = np.repeat(rng.normal(size=40), 3), np.repeat(np.arange(40), 3)
    a = hard + 0.01 * rng.normal(size=120) + 0.1
    interval = paired_bootstrap(a, hard, prompts)
    assert interval.estimate == pytest.approx(0.1, abs=0.005)
    assert interval.high - interval.low < 0.01 and interval.low >= 0.09 and interval.within(0.11)
    rmse = paired_bootstrap(a**2, hard**2, prompts, statistic=METRICS["rmse"].value)
    assert rmse.estimate == pytest.approx((a**2).mean() ** 0.5 - (hard**2).mean() ** 0.5)


def test_nested_units_are_resampled_as_one_would_by_hand():
    """Tokens, their classes, their seeds: what varies is of the same order at each level."""
    rng = np.random.default_rng(3)
    tokens, classes = np.repeat(np.arange(12), 15), np.arange(180) // 5
    x = 2 + rng.normal(size=12)[tokens] + rng.normal(size=36)[classes] + rng.normal(size=180)
    kept = rng.random(180) < 0.7  # units of unequal sizes
    x, tokens, classes = x[kept], tokens[kept], classes[kept]

    def pick(rows):
        return rng.choice(rows, len(rows))

    def by_hand():
        rows = []
        for token in pick(np.unique(tokens)):
            for one in pick(np.unique(classes[tokens == token])):
                rows.extend(pick(np.flatnonzero(classes == one)))
        return x[rows].mean()

    tail = (1 - widened(0.95, 12)) / 2
    expected = np.quantile([by_hand() for _ in range(1500)], [tail, 1 - tail])
    interval = nested_bootstrap(x, [tokens, classes])
    assert (interval.estimate, interval.n) == (pytest.approx(x.mean()), 12)
    assert (interval.low, interval.high) == pytest.approx(expected, abs=0.1 * np.ptp(expected))
    outer = nested_bootstrap(np.full(180, 1.0)[kept] * tokens, [tokens, classes])
    twice = cluster_bootstrap(tokens, tokens)
    assert (outer.low, outer.high) == pytest.approx((twice.low, twice.high), abs=0.3)
    with pytest.raises(InputError):
        nested_bootstrap([1.0, 2.0], [["a", "a"], ["b", "c"]])


def test_the_seed_fixes_the_interval():
    x = np.random.default_rng(0).normal(size=20)
    assert cluster_bootstrap(x, seed=3) == cluster_bootstrap(x, seed=3) != cluster_bootstrap(x, seed=4)
    assert nested_bootstrap(x, [np.arange(20) // 2]) == nested_bootstrap(x, [np.arange(20) // 2])
    assert str(Interval(0.9, 0.85, 0.95, 0.95, 100)) == "0.900 [0.850, 0.950]"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: wilson(3, 2), "3 successes in 2"),
        (lambda: wilson(0, 0), "not a share"),
        (lambda: wilson(1, 2, level=95), "level must lie between 0 and 1, not 95"),
        (lambda: cluster_bootstrap([]), "empty"),
        (lambda: cluster_bootstrap([1, 2], ["a"]), "lengths differ: 2 values, 1 clusters"),
        (lambda: cluster_bootstrap([1, 2], ["a", "a"]), "only one cluster"),
        (lambda: cluster_bootstrap([1, 2], level=1), "level must lie between"),
        (lambda: paired_bootstrap([1, 2], [1]), "lengths differ"),
        (lambda: paired_bootstrap(np.ones((2, 2)), [1, 2]), "2 columns and b 1"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, says):
    with pytest.raises(InputError, match=says) as error:
        call()
    assert "\n" not in str(error.value)


def test_strata_that_were_chosen_are_kept_and_their_rows_resampled():
    rng = np.random.default_rng(0)
    strata = np.repeat(np.arange(28), 10)
    values = strata % 2 + rng.normal(0, 0.3, len(strata))
    within = np.concatenate([values[strata == k] - values[strata == k].mean() for k in range(28)])
    expected = 1.96 * np.sqrt((within**2).sum() / (28 * 9) / len(values))  # of the mean, with the strata as they are
    interval = stratified_bootstrap(values, strata)
    assert interval.estimate == pytest.approx(values.mean()) and interval.n == 280
    assert (interval.high - interval.low) / 2 == pytest.approx(expected, rel=0.05)
    clustered = cluster_bootstrap(values, strata)
    assert clustered.high - clustered.low > 3 * (interval.high - interval.low)
    with pytest.raises(InputError, match="a stratum has a single row"):
        stratified_bootstrap(values[:11], strata[:11])
