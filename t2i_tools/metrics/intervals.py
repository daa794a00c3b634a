"""Intervals: Wilson (1927) for a share of independent items, the bootstrap (Efron 1979) for any other figure.

A figure is a function of the means of columns, statistic(E x_1, ..., E x_d); what is resampled is what was drawn at
random, whole clusters of items: prompts, classes, tokens. Few clusters make a percentile interval too short by
t_(K-1) sqrt(K/(K-1)) over z; it is taken at the level that makes up for that length (Hesterberg 2015, "expanded
percentile"). It stays short where clusters are few and unequal, or nearly all alike: of intervals of 95 %, 90 % hold
the truth with 5 clusters of 2 to 30 items, and 93 % with 30 clusters of which 95 % is right (test_coverage.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from t2i_tools.errors import InputError
from t2i_tools.metrics.checks import as_columns, as_groups, as_vector, between, same_length, several
from t2i_tools.metrics.counts import first
from t2i_tools.metrics.interval import Interval

Statistic: TypeAlias = Callable[[np.ndarray], np.ndarray]
RESAMPLES = 4999
SIGN = 0.8  # of a bound's error, what is given to the sign test
FEW = 10  # clusters with a pair that differs: by t, fewer are called equivalent in up to 19 % of cases, not 5 %


def wilson(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """The share of successes among n independent items (statsmodels). Raises InputError."""
    between(level, 0, 1, "level")
    if not 0 <= successes <= n or n == 0:
        raise InputError(f"{successes} successes in {n} items are not a share")
    low, high = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    return Interval(successes / n, float(low), float(high), level, int(n))


def cluster_bootstrap(
    values: Any,
    clusters: Any | None = None,
    *,
    statistic: Statistic = first,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Resample whole clusters (scipy), so that what items of one cluster share is not taken for evidence.

    values: (n,) or (n, d). clusters: n names, each item its own when None. statistic: means (..., d) -> (...). Several
    seeds a prompt need no second level: a prompt's mean already varies by what its seeds add (Davison & Hinkley 1997,
    3.8). Equal values in all clusters give an interval of no width: take `share` there. Raises InputError, also for
    fewer than two clusters.
    """
    x = as_columns(values, "values")
    totals, sizes = cluster_totals(x, as_groups(clusters, len(x)))
    table = np.hstack([totals, sizes[:, None]])  # (K, d + 1)

    def figure(drawn: np.ndarray, axis: int) -> np.ndarray:
        sums = table[drawn].sum(axis=axis - 1 if axis < 0 else axis)
        return statistic(sums[..., :-1] / sums[..., -1:])

    result = stats.bootstrap(
        (np.arange(len(table)),),
        figure,
        n_resamples=resamples,
        batch=max(1, 2**22 // table.size),
        confidence_level=widened(level, len(table)),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(statistic(x.mean(axis=0))), float(result.low), float(result.high), level, len(table))


def share(right: Any, clusters: Any | None = None, *, level: float = 0.95) -> Interval:
    """The share of what is right, (n,) 1 or 0: `wilson` for independent items, `cluster_bootstrap` for clustered ones.

    Where all or none are right, Wilson's as if each cluster were one item. One cluster of both has no bounds: nan.
    Raises InputError.
    """
    x = as_vector(right, "right")
    k = int(as_groups(clusters, len(x)).max()) + 1
    if k == len(x) or np.ptp(x) == 0:
        return wilson(round(float(x.mean()) * k), k, level=level)
    if k == 1:
        return Interval(float(x.mean()), np.nan, np.nan, level, k)
    return cluster_bootstrap(x, clusters, level=level)


def paired_bootstrap(
    a: Any,
    b: Any,
    clusters: Any | None = None,
    *,
    statistic: Statistic = first,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """statistic(a) - statistic(b) over the same n items, both drawn together, whole clusters at a time.

    a, b: (n,) or (n, d), item by item the same prompt and seed. Otherwise as `cluster_bootstrap`.
    """
    x, y = as_columns(a, "a"), as_columns(b, "b")
    same_length(a=x, b=y)
    if x.shape != y.shape:
        raise InputError(f"a has {x.shape[1]} columns and b {y.shape[1]}")
    d = x.shape[1]
    return cluster_bootstrap(
        np.hstack([x, y]),
        clusters,
        statistic=lambda m: statistic(m[..., :d]) - statistic(m[..., d:]),
        level=level,
        resamples=resamples,
        seed=seed,
    )


@dataclass(frozen=True)
class RarePairs:
    """Right and wrong that hardly ever differ, estimate = share(a) - share(b). ahead, behind: clusters of n where a is.

    The difference is at most the share of clusters in which a is ahead at all, whose number is binomial, and at least
    minus that of those where it is behind. So bounds and p are exact, without any pair that differs too. Of clusters
    of one pair each (`single`) more is known: the difference is (2 s - 1) d, d being the share of pairs that differ
    and s that of them in which a is ahead. Where the exact sign test shows s > 1/2, the lower bound is that of
    (2 s - 1) d, the error shared out between s and d; likewise the upper one.
    """

    estimate: float
    ahead: int
    behind: int
    n: int
    single: bool = False

    def interval(self, level: float) -> Interval:
        """Of the difference (Clopper & Pearson 1934, scipy)."""
        low, high = self._least(self.ahead, self.behind, level), -self._least(self.behind, self.ahead, level)
        return Interval(self.estimate, low, high, level, self.n)

    def _least(self, ahead: int, behind: int, level: float) -> float:
        """The lower bound of how far a is ahead."""
        error, differ = (1 - level) / 2, ahead + behind
        if self.single and differ:
            sign = _at_least(ahead, differ, SIGN * error)
            if sign > 0.5:
                return (2 * sign - 1) * _at_least(differ, self.n, (1 - SIGN) * error)
        return -float(stats.binomtest(behind, self.n).proportion_ci(level).high)

    def p(self, margin: float) -> float:
        """The chance of so few at most, were the difference as large as the margin."""
        return float(stats.binom.cdf(max(self.ahead, self.behind), self.n, min(margin, 1)))


def _at_least(k: int, n: int, error: float) -> float:
    """The lower bound of a share, k of n found, that is wrong with this chance."""
    return float(stats.binomtest(k, n, alternative="greater").proportion_ci(1 - error).low)


def rare_pairs(a: Any, b: Any, clusters: Any | None = None) -> RarePairs | None:
    """a, b: (n,) right or wrong, 1 or 0. None for other values, and where pairs differ in FEW clusters or in all."""
    x, y = as_vector(a, "a"), as_vector(b, "b")
    same_length(a=x, b=y)
    if not (np.isin(x, (0, 1)).all() and np.isin(y, (0, 1)).all()):
        return None
    groups = as_groups(clusters, len(x))
    sums, sizes = cluster_totals((x - y)[:, None], groups)
    if len(set(groups[x != y])) >= min(FEW, len(sizes)):
        return None
    ahead, behind = int((sums > 0).sum()), int((sums < 0).sum())
    return RarePairs(float((x - y).mean()), ahead, behind, len(sizes), single=len(sizes) == len(x))


def paired_shares(a: Any, b: Any, clusters: Any | None = None, *, level: float = 0.95) -> Interval:
    """`paired_bootstrap` of what is right or wrong, or the exact interval of `RarePairs` where few pairs differ."""
    between(level, 0, 1, "level")
    rare = rare_pairs(a, b, clusters)
    return rare.interval(level) if rare else paired_bootstrap(a, b, clusters, level=level)


def nested_bootstrap(
    values: Any,
    levels: Sequence[Any],
    *,
    statistic: Statistic = first,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Resample the first level's units, then the next one's within each, and at last single rows.

    values: (n,) or (n, d). levels: names (n,) of each level from the outermost inwards, for instance of tokens, then of
    classes. Too wide where inner units agree little, never too short. Raises InputError, also for fewer than two units
    of the first level.
    """
    x = as_columns(values, "values")
    groups = [as_groups(names, len(x)) for names in levels]
    units = len(np.unique(groups[0]))
    tail = (1 - widened(level, units)) / 2
    rng = np.random.default_rng(seed)
    weights = np.zeros((resamples, len(x)))
    _draw_nested(rng, groups, np.arange(len(x)), np.ones(resamples, dtype=np.int64), weights)
    low, high = np.quantile(statistic(weights @ x / weights.sum(axis=1, keepdims=True)), [tail, 1 - tail])
    return Interval(float(statistic(x.mean(axis=0))), float(low), float(high), level, units)


def stratified_bootstrap(
    values: Any,
    strata: Any,
    *,
    statistic: Statistic = first,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Resample rows within each stratum: for strata that were chosen, such as class and number, not drawn.

    values: (n,) or (n, d). strata: n names. It says nothing of other strata, so it is shorter than the interval over
    clusters. The few rows of a stratum make a percentile interval too short by sqrt(m / (m - 1)), m being their mean
    number; it is taken at the level that makes up for that. Raises InputError, also for a stratum of one row.
    """
    x = as_columns(values, "values")
    groups = as_groups(strata, len(x))
    sizes = np.bincount(groups)
    if sizes.min() < 2:
        raise InputError("a stratum has a single row, which says nothing about how its rows vary: give it more")
    rng = np.random.default_rng(seed)
    weights = np.zeros((resamples, len(x)))
    for group, size in enumerate(sizes):
        weights[:, groups == group] = rng.multinomial(size, np.full(size, 1 / size), size=resamples)
    m = sizes.mean()
    tail = stats.norm.sf(stats.norm.isf((1 - between(level, 0, 1, "level")) / 2) * np.sqrt(m / (m - 1)))
    low, high = np.quantile(statistic(weights @ x / len(x)), [tail, 1 - tail])
    return Interval(float(statistic(x.mean(axis=0))), float(low), float(high), level, len(x))


def cluster_totals(x: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums (K, d) of (n, d) values over clusters given as (n,) indices, and the clusters' sizes (K,)."""
    totals = np.zeros((groups.max() + 1, x.shape[1]))
    np.add.at(totals, groups, x)
    return totals, np.bincount(groups)


def widened(level: float, clusters: int) -> float:
    """The level at which the percentile interval of K clusters has the length of a t interval. Raises InputError."""
    between(level, 0, 1, "level")
    t = stats.t.ppf((1 + level) / 2, several(clusters) - 1) * np.sqrt(clusters / (clusters - 1))
    return float(1 - 2 * stats.norm.sf(t))


def cluster_weights(rng: np.random.Generator, clusters: int, resamples: int) -> np.ndarray:
    """(B, K): how often each of K clusters is drawn in each of B resamples."""
    return rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples)


def _draw_nested(rng, groups, rows, drawn, weights):
    """Fills weights (B, n) in `rows`, which are a unit's that was drawn so often, (B,). m parts of what is drawn w
    times over are one draw of w m from the m."""
    parts = [rows[groups[0][rows] == k] for k in np.unique(groups[0][rows])] if groups else rows[:, None]
    counts = rng.multinomial(drawn * len(parts), np.full(len(parts), 1 / len(parts)))  # (B, m)
    for part, count in zip(parts, counts.T, strict=True):
        if groups:
            _draw_nested(rng, groups[1:], part, count, weights)
        else:
            weights[:, part[0]] = count
