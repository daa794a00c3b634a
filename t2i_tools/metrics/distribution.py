"""How far generated images are from real ones as a whole, in the features x of a stated extractor (torchmetrics):

    KID = MMD^2 under k(x, y) = (x.y/d + 1)^3, unbiased (Binkowski et al. 2018)

Values of two extractors do not compare. FID is not here: few images bias it upwards (Chong & Forsyth 2020).
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchmetrics.image.kid import KernelInceptionDistance

from t2i_tools.errors import InputError
from t2i_tools.metrics.checks import as_columns, between


@dataclass(frozen=True)
class Distance:
    """value: KID. spread: its standard deviation over subsets, which is no interval of the value.

    n_real, n_fake: images. extractor: its name, and its d features.
    """

    value: float
    spread: float
    n_real: int
    n_fake: int
    extractor: str
    d: int


def kid(
    real: Any, fake: Any, *, extractor: str, subsets: int = 100, subset_size: int | None = None, seed: int = 0
) -> Distance:
    """KID between (n, d) and (m, d) features; around 0, also below, when they are alike.

    extractor: what made the features, in words. subset_size: images a subset, half of the smaller set and at most 1000
    when None. Raises InputError.
    """
    x, y = _features(real, fake, extractor)
    fewest = min(len(x), len(y))
    size = max(2, min(1000, fewest // 2)) if subset_size is None else subset_size
    if not 2 <= size <= fewest:
        raise InputError(
            f"subset_size {size} is out of range: use 2 to {fewest}, the number of images in the smaller set"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*will save all extracted features")
        metric = KernelInceptionDistance(feature=_Identity(x.shape[1]), subsets=subsets, subset_size=size)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        value, spread = _compute(metric, x, y)
    return Distance(float(value), float(spread), len(x), len(y), extractor, x.shape[1])


class _Identity(torch.nn.Module):
    """Hands features on where torchmetrics expects the network that makes them."""

    def __init__(self, d: int):
        super().__init__()
        self.num_features = d

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def _compute(metric: Any, real: np.ndarray, fake: np.ndarray) -> Any:
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(fake), real=False)
    return metric.compute()


def _array(features: Any) -> Any:
    return features.detach().cpu().numpy() if isinstance(features, torch.Tensor) else features


def _features(real: Any, fake: Any, extractor: str) -> tuple[np.ndarray, np.ndarray]:
    if not extractor:
        raise InputError("name the feature extractor: a distance means nothing without it")
    x, y = (as_columns(_array(f), f"{name} features") for f, name in ((real, "real"), (fake, "fake")))
    if x.shape[1] != y.shape[1]:
        raise InputError(f"real features have {x.shape[1]} columns, the fake ones {y.shape[1]}")
    between(min(len(x), len(y)), 1, np.inf, "the number of images")
    return x, y
