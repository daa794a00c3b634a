"""What a judge's own mistakes make of an accuracy (Rogan & Gladen 1978, for counts), and how far two judges agree.

With C[g, p] = P(judge finds p | g are there) the found counts are distributed as q = C^T pi, pi being the true ones.
Hence E over images of (C^-1 L)[p, N] = E L[g, N] for any score L of true count g against asked count N; accuracy has
L[g, N] = [g = N], and two outcomes give Rogan and Gladen's (q + specificity - 1) / (sensitivity + specificity - 1).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from statsmodels.stats.inter_rater import cohens_kappa

from t2i_tools.errors import InputError
from t2i_tools.metrics.checks import as_counts, as_groups, between, same_length
from t2i_tools.metrics.counts import confusion_matrix
from t2i_tools.metrics.interval import Interval
from t2i_tools.metrics.intervals import cluster_weights, widened

WORST_CONDITION = 1e4


@dataclass(frozen=True)
class Agreement:
    """Of two raters over the same images. same: share of equal counts. kappa: Cohen's, with its interval."""

    same: float
    kappa: Interval
    confusion: np.ndarray


def corrected_accuracy(
    asked: Any,
    found: Any,
    confusion: Any,
    clusters: Any | None = None,
    *,
    score: Callable[[np.ndarray, np.ndarray], np.ndarray] = np.equal,
    level: float = 0.95,
    resamples: int = 1999,
    seed: int = 0,
) -> Interval:
    """The accuracy that a judge without mistakes would have found; its interval covers both samplings.

    asked, found: (n,) counts. confusion: (M+1, M+1) numbers of calibration images, true count (row) by found count
    (column), the last meaning "M or more" as in `confusion_matrix`; every row needs images, whose errors should be
    those made on the images judged. clusters: n names of what is resampled. score(true, asked): what is averaged, for
    instance `lambda g, n: abs(g - n) <= 1` or `lambda g, n: abs(g - n)`. Calibration is resampled row by row, images
    cluster by cluster. Raises InputError, also when the judge's counts hardly depend on the true ones.
    """
    n_asked, p, table = as_counts(asked, "asked counts"), as_counts(found, "found counts"), _calibration(confusion)
    same_length(**{"asked counts": n_asked, "found counts": p})
    m = len(table) - 1
    if n_asked.max() > m:
        raise InputError(
            f"{n_asked.max()} were asked for, but the calibration ends at {m}: calibrate on images with more objects"
        )
    p = np.minimum(p, m)
    scores = np.asarray(score(np.arange(m + 1)[:, None], np.arange(m + 1)[None, :]), dtype=np.float64)  # L[g, N]
    groups = as_groups(clusters, len(p))
    k = groups.max() + 1
    tail = (1 - widened(level, k)) / 2

    totals = table.sum(axis=1)
    rates = table / totals[:, None]
    if np.linalg.cond(rates) > WORST_CONDITION:
        raise InputError("this judge cannot be corrected: what it finds hardly depends on how many there are")
    estimate = (np.linalg.inv(rates) @ scores)[p, n_asked].mean()

    rng = np.random.default_rng(seed)
    redrawn = rng.multinomial(totals, rates, size=(resamples, m + 1)) / totals[:, None]  # (B, g, p)
    corrections = np.linalg.pinv(redrawn) @ scores  # (B, p, N)
    cells = np.zeros((k, (m + 1) ** 2))  # images of each cluster by found and asked count
    np.add.at(cells, (groups, p * (m + 1) + n_asked), 1)
    drawn = cluster_weights(rng, k, resamples) @ cells  # (B, p N)
    figures = (drawn * corrections.reshape(resamples, -1)).sum(axis=1) / drawn.sum(axis=1)
    bounds = np.quantile(figures, [tail, 1 - tail])
    estimate, low, high = np.clip([estimate, *bounds], scores.min(), scores.max())
    return Interval(float(estimate), float(low), float(high), level, int(k))


def agreement(first: Any, second: Any, *, level: float = 0.95, weights: str | None = None) -> Agreement:
    """How far two raters' counts agree beyond chance (Cohen 1960, statsmodels).

    first, second: (n,) counts. weights: None, or "linear" / "quadratic" when a near miss is half an agreement. kappa is
    nan when both gave one and the same count throughout. Raises InputError.
    """
    table = confusion_matrix(first, second)
    between(level, 0, 1, "level")
    with np.errstate(invalid="ignore", divide="ignore"):
        result = cohens_kappa(table, wt=weights)
        reach = stats.norm.ppf((1 + level) / 2) * result.std_kappa
    n, k = int(table.sum()), float(result.kappa)
    return Agreement(float(np.trace(table) / n), Interval(k, k - float(reach), k + float(reach), level, n), table)


def _calibration(confusion: Any) -> np.ndarray:
    table = np.asarray(confusion)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or len(table) < 2:
        raise InputError(f"a confusion matrix must be square, from 0 to the largest count, not of shape {table.shape}")
    table = as_counts(table.ravel(), "calibration images").reshape(table.shape)
    empty = np.flatnonzero(table.sum(axis=1) == 0)
    if len(empty):
        raise InputError(f"the judge was not calibrated on images of {empty[0]} objects: add some to the calibration")
    return table
