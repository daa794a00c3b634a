"""How well a CLIP finds the caption of an image and the image of a caption, and how much of a caption it reads."""

from __future__ import annotations

from typing import TypedDict

import numpy as np


class HitShare(TypedDict):
    """A share with its interval over n items. difference: from the baseline, with its bounds; p by McNemar."""

    value: float
    low: float
    high: float
    n: int
    difference: list[float]
    p: float


def first_hits(queries: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """(n,) bool: whether answer i is the nearest to query i of all; R@1 is the mean. A tie is no hit."""
    similar = queries @ answers.T
    own = similar.diagonal().copy()
    np.fill_diagonal(similar, -np.inf)
    return own > similar.max(axis=1)


def retrieval(images: np.ndarray, texts: np.ndarray) -> dict[str, np.ndarray]:
    """Hits in both directions: "I2T" finds the caption of an image, "T2I" the image of a caption."""
    return {"I2T": first_hits(images, texts), "T2I": first_hits(texts, images)}


def compared(hits: np.ndarray, baseline: np.ndarray) -> HitShare:
    """A share with its interval, its difference from the baseline's on the same items, and McNemar's p."""
    from t2i_tools.metrics import mcnemar, paired_bootstrap, wilson

    share = wilson(int(hits.sum()), len(hits))
    difference, p = [0.0, 0.0, 0.0], 1.0
    if not np.array_equal(hits, baseline):
        interval = paired_bootstrap(hits.astype(float), baseline.astype(float))
        difference, p = [interval.estimate, interval.low, interval.high], mcnemar(hits, baseline).p
    return {
        "value": share.estimate,
        "low": share.low,
        "high": share.high,
        "n": share.n,
        "difference": difference,
        "p": p,
    }
