"""How the benchmarks tell their ratios."""

import statistics
from collections.abc import Sequence

from scipy.stats import bootstrap


def median_of(ratios: Sequence[float], digits: int = 3) -> str:
    """ "1.076 [1.003, 1.147]": the median with its 95 % bootstrap interval (BCa, scipy)."""
    interval = bootstrap((ratios,), statistics.median, vectorized=False, rng=0).confidence_interval
    return " ".join(
        [f"{statistics.median(ratios):.{digits}f}", f"[{interval.low:.{digits}f}, {interval.high:.{digits}f}]"]
    )
