import math

import pytest
import torch

from t2i_tools.entropy.formula import FEWER, MORE, RULES, find_rule, find_strength, gain
from t2i_tools.errors import InputError


@pytest.mark.parametrize(
    ("tokens", "trained", "expected"), [(784, 4096, 0.895), (16, 64, 0.8165), (9216, 4096, 1.048), (16384, 4096, 1.080)]
)
def test_values_of_the_papers_sizes(tokens, trained, expected):
    """SD-512 at 224, 256 (middle block), 768 and 1024 pixels."""
    assert gain(tokens, trained) == pytest.approx(expected, abs=5e-4)
    assert gain(tokens, trained, RULES["log"]) == pytest.approx(expected**2, abs=1e-3)


def test_exactly_one_at_the_native_size():
    assert gain(100, 100) == 1.0
    assert gain(100, 100, lambda n, t: 7.0, strength=-1) == 1.0


def test_strength_is_a_power():
    assert gain(256, 64, strength=0) == 1.0
    assert gain(256, 64, strength=2) == pytest.approx(gain(256, 64, RULES["log"]))
    assert gain(256, 64, strength=-1) == pytest.approx(1 / gain(256, 64))


def test_auto_is_a_strength_by_direction():
    assert gain(64, 256, strength="auto") == gain(64, 256, strength=FEWER)
    assert gain(1024, 256, strength="auto") == gain(1024, 256, strength=MORE)
    assert gain(256, 256, strength="auto") == 1.0
    assert (find_strength("auto"), find_strength(2)) == ("auto", 2)


@pytest.mark.parametrize("strength", ["much", "1", math.nan, math.inf])
def test_strengths_that_are_none(strength):
    with pytest.raises(InputError, match="must be a finite number or 'auto', not"):
        find_strength(strength)


def test_a_single_token_has_a_gain():
    assert gain(1, 64) == pytest.approx(math.sqrt(math.log(2) / math.log(64)))
    assert gain(64, 1) > 1


def test_normalised_entropy_of_gaussian_logits_keeps_its_value():
    generator = torch.Generator().manual_seed(0)

    def share(n, scale):
        rows = (torch.randn(200, n, generator=generator, dtype=torch.float64) * scale).softmax(-1)
        return float(-(rows * rows.log()).sum(-1).mean()) / math.log(n)

    native = share(256, 1.0)
    for n in (64, 1024, 4096):
        assert abs(share(n, gain(n, 256)) - native) < 0.25 * abs(share(n, 1.0) - native)


@pytest.mark.parametrize("rule", [lambda n, t: 0.0, lambda n, t: float("nan"), lambda n, t: None, lambda n, t: 1 / 0])
def test_rules_that_give_no_gain(rule):
    with pytest.raises(InputError, match="N = 64, T = 16"):
        gain(64, 16, rule)


def test_rules_by_name():
    assert find_rule("log") is RULES["log"]
    assert find_rule(min) is min
    with pytest.raises(InputError, match="'sqrt'.*sqrt_log, log"):
        find_rule("sqrt")
