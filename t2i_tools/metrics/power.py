"""How many prompts a claim takes, before any is run.

Paired methods differ by delta = p10 - p01 and disagree on a share psi = p10 + p01 of the prompts. Exact McNemar rejects
by Binomial(D, 1/2), where D ~ Binomial(n, psi) disagree and Binomial(D, p10/psi) of them favour a: its power is a sum
over D (Connor 1987 approximates it by n = (z_(1-alpha/2) sqrt(psi) + z_power sqrt(psi - delta^2))^2 / delta^2).
"""

from collections.abc import Callable

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint, samplesize_proportions_2indep_onetail

from t2i_tools.errors import InputError
from t2i_tools.metrics.checks import between

MOST = 2**18


def mcnemar_power(n: int, discordant: float, difference: float, *, alpha: float = 0.05) -> float:
    """The chance that exact McNemar at `alpha`, two-sided, sees a difference among n independent prompts.

    discordant: psi, the share of prompts that one method alone gets right. difference: delta, at most psi. Raises
    InputError.
    """
    _check_shares(discordant, difference, alpha, 0.5)
    if n < 1:
        raise InputError(f"{n} prompts are too few")
    d = np.arange(n + 1)
    critical = stats.binom.ppf(alpha / 2, d, 0.5)  # the largest count that may still be too many
    critical = np.where(stats.binom.cdf(critical, d, 0.5) > alpha / 2, critical - 1, critical)
    p = (1 + abs(difference) / discordant) / 2
    rejects = stats.binom.cdf(critical, d, p) + stats.binom.sf(d - critical - 1, d, p)
    return float(stats.binom.pmf(d, n, discordant) @ rejects)


def prompts_for_mcnemar(discordant: float, difference: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """How many prompts exact McNemar needs to see a difference with this power. Raises InputError."""
    _check_shares(discordant, difference, alpha, power)
    return _smallest(lambda n: mcnemar_power(n, discordant, difference, alpha=alpha) >= power)


def prompts_for_two_shares(first: float, second: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """How many prompts each of two unpaired methods needs, for shares to differ at `alpha`, two-sided (statsmodels).

    Raises InputError.
    """
    for name, share in (("a share", first), ("a share", second), ("power", power), ("alpha", alpha)):
        between(share, 0, 1, name)
    if first == second:
        raise InputError("the shares are equal: no number of prompts can separate them")
    return _at_most(samplesize_proportions_2indep_onetail(first - second, second, power, alpha=alpha))


def prompts_for_half_width(share: float, half_width: float, *, level: float = 0.95) -> int:
    """How many independent items make this share's Wilson interval +-`half_width` or shorter. Raises InputError."""
    if not 0 <= share <= 1:
        raise InputError(f"a share must lie between 0 and 1, not {share:g}")
    between(half_width, 0, 0.5, "half width")
    between(level, 0, 1, "level")

    def enough(n: int) -> bool:
        low, high = proportion_confint(share * n, n, alpha=1 - level, method="wilson")
        return high - low <= 2 * half_width

    return _smallest(enough)


def _smallest(enough: Callable[[int], bool]) -> int:
    """The least n from 1 on that is enough, by bisection: what is enough stays so."""
    high = 1
    while not enough(high):
        high = _at_most(2 * high)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _at_most(n: float) -> int:
    if not n <= MOST:
        raise InputError(f"this claim needs more than {MOST:,} prompts: claim a larger difference or a wider interval")
    return max(1, int(np.ceil(n)))


def _check_shares(discordant: float, difference: float, alpha: float, power: float) -> None:
    for name, share in (("alpha", alpha), ("power", power)):
        between(share, 0, 1, name)
    if not 0 < discordant <= 1:
        raise InputError(f"the discordant share must lie between 0 and 1, not {discordant:g}")
    if not 0 < abs(difference) <= discordant:
        raise InputError(
            f"the difference must not be 0, and must be at most the discordant share {discordant:g}, not {difference:g}"
        )
