import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired

from t2i_tools.errors import InputError
from t2i_tools.metrics import equivalence, holm, mcnemar, paired_test


def test_mcnemar_is_the_binomial_test_of_the_pairs_that_differ():
    a = np.repeat([1, 1, 0, 0], [30, 12, 4, 9])
    b = np.repeat([1, 0, 1, 0], [30, 12, 4, 9])
    result = mcnemar(a.astype(bool), b)
    assert result.p == pytest.approx(stats.binomtest(4, 16).pvalue)
    assert (result.only_a, result.only_b, result.n) == (12, 4, 55)
    assert mcnemar(a, a).p == 1


def test_the_paired_test_is_mcnemar_for_pairs_and_counts_clusters_not_items():
    a, b = np.repeat([1, 0, 1], [8, 2, 3]), np.repeat([0, 1, 1], [8, 2, 3])
    assert paired_test(a, b) == pytest.approx(mcnemar(a, b).p)
    x = np.random.default_rng(0).normal(0.6, 1, 10)
    once = paired_test(x, np.zeros(10))
    assert once == pytest.approx(paired_test(np.repeat(x, 5), np.zeros(50), np.repeat(np.arange(10), 5)))


def test_holm_by_hand():
    corrected = holm({"bias": 0.04, "exact": 0.01, "mae": 0.03})
    assert corrected == pytest.approx({"bias": 0.06, "exact": 0.03, "mae": 0.06})
    assert holm({}) == {}


def test_equivalence_is_statsmodels_for_independent_pairs():
    rng = np.random.default_rng(0)
    a = rng.normal(size=80)
    b = a + rng.normal(0.02, 0.2, 80)
    result = equivalence(a, b, 0.1)
    assert result.p == pytest.approx(ttost_paired(a, b, -0.1, 0.1)[0])
    assert result.equivalent and result.interval.within(0.1) and result.interval.level == pytest.approx(0.9)
    assert not equivalence(a, b + 0.08, 0.1).equivalent


def test_clusters_of_equal_size_are_compared_by_their_means():
    rng = np.random.default_rng(0)
    d = rng.normal(size=(20, 1)) + rng.normal(size=(20, 3))
    result = equivalence(d.ravel(), np.zeros(60), 1, np.repeat(np.arange(20), 3))
    assert result.p == pytest.approx(ttost_paired(d.mean(axis=1), np.zeros(20), -1, 1)[0])
    assert result.interval.n == 20


def test_pairs_that_never_differ_show_as_much_as_their_number_can():
    """The rule of three, exactly: were 5 % of pairs to differ, 59 would hold none in less than 5 % of cases."""
    for n, shown in ((2, False), (58, False), (59, True)):
        result = equivalence(np.ones(n), np.ones(n), 0.05)
        assert result.equivalent is result.interval.within(0.05) is shown
        assert result.p == pytest.approx(0.95**n)
        assert result.interval.high == -result.interval.low == pytest.approx(1 - 0.05 ** (1 / n))
    items = np.zeros(80)
    assert not equivalence(items, items, 0.05, np.arange(80) // 2).equivalent  # forty clusters


@pytest.mark.parametrize(("n", "margin"), [(30, 0.1), (60, 0.05), (400, 0.05)])
def test_shares_that_differ_by_the_margin_are_seldom_called_equivalent(n, margin):
    """Where one method never loses, the worst case for t, which errs in 18, 19 and 6 %; over all outcomes."""
    called = [equivalence(np.arange(n) < ahead, np.zeros(n), margin).equivalent for ahead in range(n // 4)]
    assert called[0] and not called[-1]
    error = stats.binom.pmf(np.flatnonzero(called), n, margin).sum()
    assert error <= (0.05 if n < 100 else 0.07)


def test_measurements_without_spread_tell_nothing():
    a, b = np.array([0.3, 0.4, 0.9]), np.array([0.2, 0.3, 0.8])  # differences equal up to rounding
    for result in (equivalence(a, b, 0.5), equivalence(a, a, 0.5)):
        assert (result.p, result.equivalent, result.interval.high) == (1, False, np.inf)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: mcnemar([], []), "empty"),
        (lambda: mcnemar([1, 2], [1, 0]), "must be 0 or 1"),
        (lambda: mcnemar([1], [1, 0]), "lengths differ"),
        (lambda: paired_test([1], [1, 0]), "lengths differ"),
        (lambda: paired_test([1, 2], [1, 0], "aa"), "only one cluster"),
        (lambda: holm({"a": 1.2}), "between 0 and 1"),
        (lambda: equivalence([1, 2], [1, 2], 0), "margin must lie between"),
        (lambda: equivalence([1, 2], [1, 2], 1, "aa"), "only one cluster"),
        (lambda: equivalence([1, 2], [1, 2], 1, alpha=0.5), "alpha must lie between"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, says):
    with pytest.raises(InputError, match=says) as error:
        call()
    assert "\n" not in str(error.value)
