"""What every figure asks of its input: one clear line when it is not so."""

from typing import Any

import numpy as np

from t2i_tools.errors import InputError


def as_counts(values: Any, name: str) -> np.ndarray:
    """(n,) int64 of at least one whole number from 0 on. Raises InputError."""
    array = as_vector(values, name)
    if (array < 0).any() or (array != np.floor(array)).any():
        raise InputError(
            f"{name} must be counts: whole numbers from 0 on, not {array[(array < 0) | (array % 1 != 0)][0]:g}"
        )
    return array.astype(np.int64)


def as_vector(values: Any, name: str) -> np.ndarray:
    """(n,) float64 of at least one finite number. Raises InputError."""
    array = as_columns(values, name)
    if array.shape[1] != 1:
        raise InputError(f"{name} must be a one-dimensional array, not one of shape {array.shape}")
    return array[:, 0]


def as_columns(values: Any, name: str) -> np.ndarray:
    """(n, d) float64 with n >= 1, a vector being one column. Raises InputError."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} are not numbers") from error
    if array.ndim not in (1, 2):
        raise InputError(f"{name} must be a one-dimensional array, not one of shape {array.shape}")
    if len(array) == 0:
        raise InputError(f"{name} are empty: there is nothing to measure")
    if not np.isfinite(array).all():
        raise InputError(f"{name} hold a number that is not finite")
    return array.reshape(len(array), -1)


def as_groups(clusters: Any | None, n: int) -> np.ndarray:
    """(n,) int64, the cluster of each of n items, from 0 on; every item its own when None. Raises InputError."""
    if clusters is None:
        return np.arange(n)
    names = {name: index for index, name in enumerate(dict.fromkeys(clusters))}
    groups = np.array([names[name] for name in clusters], dtype=np.int64)
    same_length(values=range(n), clusters=groups)
    return groups


def several(clusters: int) -> int:
    """The number of clusters, if there are two or more. Raises InputError."""
    if clusters < 2:
        raise InputError("there is only one cluster: give rows of two or more, so that their spread can be estimated")
    return clusters


def same_length(**named: Any) -> None:
    """Raises InputError unless all have the same length."""
    lengths = {name: len(values) for name, values in named.items()}
    if len(set(lengths.values())) > 1:
        raise InputError("lengths differ: " + ", ".join(f"{n} {name}" for name, n in lengths.items()))


def between(value: float, low: float, high: float, name: str) -> float:
    """The value, if it lies strictly between. Raises InputError."""
    if not low < value < high:
        raise InputError(f"{name} must lie between {low:g} and {high:g}, not {value:g}")
    return float(value)
