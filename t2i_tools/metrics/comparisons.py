"""Tests of one method against another over the same items: exact McNemar (1947), the paired permutation test
(Fisher 1935), Holm's correction (1979) and equivalence by two one-sided tests (TOST, Schuirmann 1987).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from t2i_tools.errors import InputError
from t2i_tools.metrics.checks import as_columns, as_groups, as_vector, between, same_length, several
from t2i_tools.metrics.interval import Interval
from t2i_tools.metrics.intervals import cluster_totals, rare_pairs

SAME = 1e-9  # of the margin: what rounding makes of equal differences

Test = TypeVar("Test")  # the name of a test


@dataclass(frozen=True)
class McNemar:
    """p: two-sided. only_a, only_b: how many of the n items only one method got right."""

    p: float
    only_a: int
    only_b: int
    n: int


@dataclass(frozen=True)
class Equivalence:
    """p of the two one-sided tests; interval: of the mean difference, at level 1 - 2 alpha."""

    p: float
    interval: Interval
    margin: float
    equivalent: bool


def mcnemar(right_a: Any, right_b: Any) -> McNemar:
    """Exact McNemar over n independent items: only_a ~ Binomial(only_a + only_b, 1/2) (statsmodels).

    right_a, right_b: (n,) booleans. Several seeds a prompt are not independent: take `paired_test`. Raises InputError.
    """
    a, b = as_vector(right_a, "right_a"), as_vector(right_b, "right_b")
    same_length(right_a=a, right_b=b)
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise InputError("McNemar's test compares right and wrong: the values must be 0 or 1")
    only_a, only_b = int((a > b).sum()), int((b > a).sum())
    p = statsmodels_mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue
    return McNemar(float(p), only_a, only_b, len(a))


def paired_test(a: Any, b: Any, clusters: Any | None = None, *, resamples: int = 9999, seed: int = 0) -> float:
    """Two-sided p that a and b have the same mean: signs of the clusters' summed differences flipped (scipy).

    a, b: (n,), item by item the same prompt and seed. Exact for up to 13 clusters, drawn beyond. Raises InputError.
    """
    d = _differences(a, b)
    totals, _ = cluster_totals(d, as_groups(clusters, len(d)))
    several(len(totals))
    result = stats.permutation_test(
        (totals[:, 0],),
        lambda x, axis: x.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def holm(p_values: Mapping[Test, float]) -> dict[Test, float]:
    """The p values corrected so that any error among them has the chance alpha (statsmodels). Raises InputError."""
    if not p_values:
        return {}
    p = as_vector(list(p_values.values()), "p values")
    if ((p < 0) | (p > 1)).any():
        raise InputError("a p value must lie between 0 and 1")
    return dict(zip(p_values, multipletests(p, method="holm")[1].tolist(), strict=True))


def equivalence(a: Any, b: Any, margin: float, clusters: Any | None = None, *, alpha: float = 0.05) -> Equivalence:
    """TOST (statsmodels): is the mean of a - b inside (-margin, margin)?

    a, b: (n,) paired items. Clusters of unequal sizes n_k count by z_k = r + (s_k - r n_k) K / n, with s_k the sum of
    differences in a cluster and r their overall mean (the linearised ratio, Cochran 1977, 6.3). Where right and wrong
    (1 and 0) differ in fewer than FEW clusters, t knows too little and an exact test takes its place (`RarePairs`):
    none of n says p = (1 - margin)^n. Other differences without spread are no evidence: p = 1. For a figure that is no
    mean, `paired_bootstrap(level=1 - 2 * alpha).within(margin)`. Raises InputError.
    """
    between(alpha, 0, 0.5, "alpha")
    between(margin, 0, np.inf, "margin")
    d, level = _differences(a, b), 1 - 2 * alpha
    sums, sizes = cluster_totals(d, as_groups(clusters, len(d)))
    several(len(sums))
    r = float(d.mean())
    z = r + (sums[:, 0] - r * sizes) * len(sizes) / len(d)
    if rare := rare_pairs(a, b, clusters):
        p, interval = rare.p(margin), rare.interval(level)
    elif np.ptp(z) <= SAME * margin:
        p, interval = 1.0, Interval(r, -np.inf, np.inf, level, len(z))
    else:
        summary = DescrStatsW(z)
        p = float(summary.ttost_mean(-margin, margin)[0])
        low, high = summary.tconfint_mean(2 * alpha)
        interval = Interval(r, float(low), float(high), level, len(z))
    return Equivalence(p, interval, margin, p <= alpha)


def _differences(a, b):
    x, y = as_vector(a, "a"), as_vector(b, "b")
    same_length(a=x, b=y)
    return as_columns(x - y, "differences")
