"""A value with its confidence interval, in a module of its own so that showing one imports no statistics packages."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """[low, high] holds the truth in `level` of cases. n: the independent units behind it."""

    estimate: float
    low: float
    high: float
    level: float
    n: int

    def within(self, margin: float) -> bool:
        """Whether the whole interval lies in (-margin, margin): at level 1 - 2 alpha, TOST at alpha."""
        return -margin < self.low and self.high < margin

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"
