"""How much sharper attention becomes when a layer sees N tokens and was trained on T."""

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

from t2i_tools.errors import InputError

Rule: TypeAlias = Callable[[float, float], float]
Strength: TypeAlias = float | Literal["auto"]
AUTO = "auto"
# Of "auto", chosen on the dev split of examples/evaluations/sizes: with fewer tokens than in training, and with more.
FEWER, MORE = 32.0, 1.0


def sqrt_log(n: float, t: float) -> float:
    """sqrt(ln N / ln T), which makes the softmax scale sqrt(log_T N / d) of 1 / sqrt(d) (Jin et al. 2023, 2306.08645).

    Gaussian logits of standard deviation s have the entropy H = ln N - (gain s)^2 / 2, so H / ln N keeps its value.
    """
    return math.sqrt(log(n, t))


def log(n: float, t: float) -> float:
    """ln N / ln T (Su Jianlin 2022, kexue.fm/archives/8823)."""
    return math.log(max(n, 2)) / math.log(max(t, 2))


RULES: dict[str, Rule] = {"sqrt_log": sqrt_log, "log": log}


def find_rule(rule: str | Rule) -> Rule:
    """A rule by its name; a callable (N, T) -> gain is handed back. Raises InputError."""
    if callable(rule):
        return rule
    if rule not in RULES:
        raise InputError(f"unknown rule {rule!r}: choose {', '.join(RULES)} or pass a callable (N, T) -> gain")
    return RULES[rule]


def find_strength(strength: Strength) -> Strength:
    """A strength, or "auto". Raises InputError."""
    if strength == AUTO:
        return AUTO
    if isinstance(strength, str) or not math.isfinite(strength):
        raise InputError(f"strength must be a finite number or {AUTO!r}, not {strength!r}")
    return strength


def auto_strength(n: float, t: float) -> float:
    """FEWER where a layer sees fewer tokens than in training, MORE where it sees more.

    A finding, not the paper's theory: so much blur draws more objects below the native size, while holding H / ln N at
    its native value does not (examples/evaluations/sizes/strength_results.md).
    """
    return FEWER if n < t else MORE


def gain(n: float, t: float, rule: Rule = sqrt_log, strength: Strength = 1.0) -> float:
    """rule(N, T) ** strength, and exactly 1 where N = T. Raises InputError where that is no positive number.

    strength: 0 is off, 0.5 half as much (of the logarithm), -1 the opposite; "auto" is `auto_strength(N, T)`.
    """
    if n == t:
        return 1.0
    try:
        value = float(rule(n, t) ** (auto_strength(n, t) if isinstance(strength, str) else strength))
    except (ArithmeticError, TypeError, ValueError) as error:
        raise InputError(f"the rule gives no gain for N = {n:g}, T = {t:g}: {error}") from error
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"the gain for N = {n:g}, T = {t:g} is {value:g}: it must be a positive number")
    return value
