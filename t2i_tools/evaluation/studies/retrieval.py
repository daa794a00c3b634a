"""How well a CLIP finds the caption of an image and the image of a caption, and how much of a caption it reads."""

from __future__ import annotations

from typing import Any

import numpy as np


def first_hits(queries: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """(n,) bool: whether answer i is the nearest to query i of all; R@1 is the mean. A tie is no hit."""
    similar = queries @ answers.T
    own = similar.diagonal().copy()
    np.fill_diagonal(similar, -np.inf)
    return own > similar.max(axis=1)


def retrieval(images: np.ndarray, texts: np.ndarray) -> dict[str, np.ndarray]:
    """Hits in both directions: "I2T" finds the caption of an image, "T2I" the image of a caption."""
    return {"I2T": first_hits(images, texts), "T2I": first_hits(texts, images)}


def compared(hits: np.ndarray, baseline: np.ndarray) -> dict[str, Any]:
    """A share with its interval, its difference from the baseline's on the same items, and McNemar's p."""
    from t2i_tools.metrics import mcnemar, paired_bootstrap, wilson

    share = wilson(int(hits.sum()), len(hits))
    summary = {"value": share.estimate, "low": share.low, "high": share.high, "n": share.n}
    if np.array_equal(hits, baseline):
        return summary | {"difference": [0.0, 0.0, 0.0], "p": 1.0}
    difference = paired_bootstrap(hits.astype(float), baseline.astype(float))
    return summary | {
        "difference": [difference.estimate, difference.low, difference.high],
        "p": mcnemar(hits, baseline).p,
    }
