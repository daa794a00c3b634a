import numpy as np
import pytest
from scipy import stats

from t2i_tools.errors import InputError
from t2i_tools.metrics import mcnemar_power, prompts_for_half_width, prompts_for_mcnemar, prompts_for_two_shares, wilson


def test_mcnemars_power_by_enumeration():
    n, p10, p01 = 24, 0.4, 0.1
    b, c = (index.ravel() for index in np.indices((n + 1, n + 1)))
    b, c = b[b + c <= n], c[b + c <= n]
    chance = stats.multinomial.pmf(np.stack([b, c, n - b - c], axis=1), n, [p10, p01, 1 - p10 - p01])
    p = np.minimum(1, 2 * stats.binom.cdf(np.minimum(b, c), b + c, 0.5))
    assert mcnemar_power(n, p10 + p01, p10 - p01) == pytest.approx(chance[p <= 0.05].sum())
    assert mcnemar_power(n, 0.5, -0.3) == pytest.approx(mcnemar_power(n, 0.5, 0.3))
    assert mcnemar_power(3, 1, 1) == 0  # three pairs are never enough


def test_prompts_for_mcnemar_are_enough_and_near_connors():
    n = prompts_for_mcnemar(0.3, 0.1)
    assert mcnemar_power(n, 0.3, 0.1) >= 0.8 > mcnemar_power(n - 1, 0.3, 0.1)
    connor = (1.95996 * 0.3**0.5 + 0.84162 * 0.29**0.5) ** 2 / 0.01
    assert connor < n < 1.1 * connor
    assert prompts_for_mcnemar(0.3, 0.1, power=0.9) > n > prompts_for_mcnemar(0.3, 0.1, alpha=0.1)


def test_prompts_for_two_shares_are_the_textbooks():
    p, q = 0.5, 0.65
    mean = (p + q) / 2
    root = 1.95996 * (2 * mean * (1 - mean)) ** 0.5 + 0.84162 * (p * (1 - p) + q * (1 - q)) ** 0.5
    assert prompts_for_two_shares(p, q) == int(np.ceil(root**2 / (p - q) ** 2)) == prompts_for_two_shares(q, p)


@pytest.mark.parametrize("share", [0, 0.3, 0.5, 0.97])
def test_prompts_for_a_half_width(share):
    n = prompts_for_half_width(share, 0.04)
    width = lambda n: wilson(round(share * n), n).high - wilson(round(share * n), n).low  # noqa: E731
    assert width(n) == pytest.approx(0.08, rel=0.05)
    assert prompts_for_half_width(share, 0.08) < n


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: prompts_for_mcnemar(0.1, 0.2), "at most the discordant share 0.1, not 0.2"),
        (lambda: prompts_for_mcnemar(0.1, 0), "not 0"),
        (lambda: prompts_for_mcnemar(0, 0.1), "discordant share must lie"),
        (lambda: prompts_for_mcnemar(0.5, 0.3, power=1), "power must lie"),
        (lambda: mcnemar_power(0, 0.5, 0.3), "too few"),
        (lambda: prompts_for_two_shares(0.5, 0.5), "shares are equal"),
        (lambda: prompts_for_two_shares(0.5, 1.5), "share must lie"),
        (lambda: prompts_for_half_width(0.5, 0.0001), "claim a larger difference"),
        (lambda: prompts_for_half_width(2, 0.1), "share must lie"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, says):
    with pytest.raises(InputError, match=says) as error:
        call()
    assert "\n" not in str(error.value)
