"""How often an object is drawn more than once where one was asked for, as models do above their native size.

inflation = sum of found / sum of reference, reference = 1 per picture, or what was found at the native size
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from t2i_tools.errors import InputError
from t2i_tools.metrics.checks import as_counts, same_length


@dataclass(frozen=True)
class Inflation:
    """inflation: ratio, 1 is none. duplicated, missing: the shares of pictures with more than one object, and none."""

    inflation: float
    duplicated: float
    missing: float


def count_inflation(found: Any, reference: Any | None = None) -> Inflation:
    """Of (n,) counts found in pictures of one-object prompts, against those of the same prompts at the native size.

    Raises InputError, also when the reference has no object at all.
    """
    p = as_counts(found, "found counts")
    base = np.ones_like(p) if reference is None else as_counts(reference, "reference counts")
    same_length(**{"found counts": p, "reference counts": base})
    if base.sum() == 0:
        raise InputError("the reference pictures hold no object: there is nothing to compare with")
    return Inflation(float(p.sum() / base.sum()), float((p > 1).mean()), float((p == 0).mean()))
