"""How well counts were met: with g objects asked for, p found and e = p - g, per image

    exact [e = 0], off by one [|e| <= 1], MAE E|e|, RMSE (E e^2)^1/2, normalized MAE E|e|/N, bias E e,
    TP = min(p, g), FP = max(p - g, 0), FN = max(g - p, 0), precision TP/(TP+FP), recall TP/(TP+FN), F1 2TP/(2TP+FP+FN)

as in CoCoCount (Binyamin et al. 2024) and GenEval (Ghosh et al. 2023). Each figure is a smooth function of means over
images, so that `intervals` can resample any of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from t2i_tools.errors import InputError
from t2i_tools.metrics.checks import as_counts, same_length

if TYPE_CHECKING:
    from t2i_tools.detectors.detections import Detections

Terms = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]


def first(means: np.ndarray) -> np.ndarray:
    """(..., d) -> (...): the first column."""
    return means[..., 0]


@dataclass(frozen=True)
class Metric:
    """A figure value(mean over images of terms(g, p, o)), where o counts objects of other classes.

    terms: three (n,) int arrays -> d arrays (n,). value: the d means (..., d) -> (...).
    """

    terms: Terms
    value: Callable[[np.ndarray], np.ndarray] = first

    def columns(self, true: Any, found: Any, others: Any | None = None) -> np.ndarray:
        """(n, d) float64: what the bootstrap resamples, `statistic` being `value`. Raises InputError."""
        g, p = as_counts(true, "true counts"), as_counts(found, "found counts")
        o = np.zeros_like(p) if others is None else as_counts(others, "other objects")
        same_length(**{"true counts": g, "found counts": p, "other objects": o})
        return np.stack(self.terms(g, p, o), axis=-1).astype(np.float64)

    def __call__(self, true: Any, found: Any, others: Any | None = None) -> float:
        """The figure itself."""
        return float(self.value(self.columns(true, found, others).mean(axis=0)))


def _ratio(means: np.ndarray) -> np.ndarray:
    """Right over all, of the means (..., 2) of right and wrong; 1 where there is neither: nothing went wrong."""
    right, total = means[..., 0], means.sum(axis=-1)
    return np.where(total > 0, right / np.where(total > 0, total, 1), 1.0)


METRICS: dict[str, Metric] = {
    "exact": Metric(lambda g, p, o: [p == g]),
    "exact_alone": Metric(lambda g, p, o: [(p == g) & (o == 0)]),
    "off_by_one": Metric(lambda g, p, o: [abs(p - g) <= 1]),
    "mae": Metric(lambda g, p, o: [abs(p - g)]),
    "rmse": Metric(lambda g, p, o: [(p - g) ** 2], lambda m: np.sqrt(m[..., 0])),
    "normalized_mae": Metric(lambda g, p, o: [abs(p - g) / np.maximum(g, 1)]),
    "bias": Metric(lambda g, p, o: [p - g]),
    "precision": Metric(lambda g, p, o: [np.minimum(p, g), np.maximum(p - g, 0) + o], _ratio),
    "recall": Metric(lambda g, p, o: [np.minimum(p, g), np.maximum(g - p, 0)], _ratio),
    "f1": Metric(lambda g, p, o: [2 * np.minimum(p, g), abs(p - g) + o], _ratio),
}


def count_metrics(true: Any, found: Any, others: Any | None = None) -> dict[str, float]:
    """Every figure of METRICS by name.

    true, found: (n,) counts asked for and found of the asked class. others: (n,) found objects of other classes; they
    are false positives, and keep an image from being `exact_alone`, which is left out when they are not given.
    Normalized MAE takes N = 1 where none was asked for. Raises InputError.
    """
    skipped = {"exact_alone"} if others is None else set()
    return {name: metric(true, found, others) for name, metric in METRICS.items() if name not in skipped}


def confusion_matrix(true: Any, found: Any, largest: int | None = None) -> np.ndarray:
    """(M+1, M+1) int64: in how many images of true count (row) which count was found (column).

    The last row and column mean "M or more"; M is `largest`, else the largest count there is. Raises InputError.
    """
    g, p = as_counts(true, "true counts"), as_counts(found, "found counts")
    same_length(**{"true counts": g, "found counts": p})
    if largest is not None and largest < 1:
        raise InputError(f"the largest count must be at least 1, not {largest}")
    m = int(max(g.max(), p.max())) if largest is None else largest
    table = np.zeros((m + 1, m + 1), dtype=np.int64)
    np.add.at(table, (np.minimum(g, m), np.minimum(p, m)), 1)
    return table


def found_counts(
    found: "Sequence[Detections]", labels: Sequence[str], threshold: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) objects of each image's asked class and (n,) of all others, of those that score `threshold` or more."""
    same_length(images=found, labels=labels)
    sure = np.array([int((image.scores >= threshold).sum()) for image in found], dtype=np.int64)
    asked = [int((d.of(label).scores >= threshold).sum()) for d, label in zip(found, labels, strict=True)]
    return np.array(asked, dtype=np.int64), sure - asked


@dataclass(frozen=True)
class Sweep:
    """What a detector would have counted at other thresholds. thresholds, exact, mae, bias: (t,) float64."""

    thresholds: np.ndarray
    exact: np.ndarray
    mae: np.ndarray
    bias: np.ndarray

    @property
    def best(self) -> float:
        """The threshold with the most exact counts; among equals that of the least MAE. Choose it on dev only."""
        return float(self.thresholds[np.lexsort((self.mae, -self.exact))[0]])


def threshold_sweep(
    found: "Sequence[Detections]", true: Any, labels: Sequence[str] | None = None, thresholds: Any | None = None
) -> Sweep:
    """Exact, MAE and bias over the score threshold, without running the detector again.

    found: n images' detections, made at a low threshold: a box below another's score never suppresses it, so dropping
    the unsure ones afterwards is the same. true: (n,) counts. labels: the class to count in each; every object when
    None. thresholds: (t,), 0.05 to 0.95 when None; a score equal to it counts. Raises InputError.
    """
    g = as_counts(true, "true counts")
    same_length(**{"images": found, "true counts": g, "labels": g if labels is None else labels})
    grid = np.linspace(0.05, 0.95, 19) if thresholds is None else np.atleast_1d(np.asarray(thresholds, np.float64))
    if labels is not None:
        found = [image.of(label) for image, label in zip(found, labels, strict=True)]
    # float32, as the scores: 0.3 must keep a score of 0.3
    p = np.stack([(np.asarray(d.scores)[:, None] >= grid.astype(np.float32)).sum(axis=0) for d in found])  # (n, t)
    e = p - g[:, None]
    return Sweep(grid, (e == 0).mean(axis=0), abs(e).mean(axis=0), e.mean(axis=0))
