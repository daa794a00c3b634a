"""Which cases of a sweep the fast suite takes."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def sample(cases: Iterable[Any], fast: Callable[..., bool] | Iterable[Any]) -> list[Any]:
    """The cases as parameters, marked slow but for those of the fast suite.

    Args:
        cases: Values of one parameter, or a tuple of values per case.
        fast: The cases that stay fast, or what says so of a case's values.
    """
    made = []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        stays = fast(*values) if callable(fast) else case in fast
        made.append(pytest.param(*values, marks=() if stays else pytest.mark.slow))
    return made
