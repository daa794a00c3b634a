"""How the benchmarks tell their ratios."""

import statistics
from collections.abc import Sequence

from scipy.stats import bootstrap


def median_of(ratios: Sequence[float], digits: int = 3) -> str:
    """ "1.076 [1.003, 1.147]": the median with its 95 % interval.

    By percentiles of the bootstrap (scipy), so that equal ratios have one too.
    """
    interval = bootstrap((ratios,), statistics.median, vectorized=False, method="percentile", rng=0).confidence_interval
    return f"{statistics.median(ratios):.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
