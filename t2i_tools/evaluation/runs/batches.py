"""A batch in which one item may fail without harm to the others."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from t2i_tools.errors import OutOfMemoryError, first_line

Input = TypeVar("Input")
Output = TypeVar("Output")


def attempt(
    run: Callable[[list[Input]], Sequence[Output]],
    inputs: Sequence[Input],
    fillers: Sequence[Input],
    failed: dict[int, Exception] | None = None,
) -> list[Output | Exception]:
    """What `run` makes of each input, or the error that it raises because of it.

    An input that fails is replaced by its filler, so that the batch keeps its shape and the others their bits. Where
    the batch fails, each input is tried between fillers; where fillers alone fail too, no input is to blame and all
    have the error. failed: those known to be unusable beforehand, by place.
    """
    failed = dict(failed or {})

    def batch(real: set[int]) -> Sequence[Output]:
        return run([inputs[i] if i in real else fillers[i] for i in range(len(inputs))])

    real = set(range(len(inputs))) - failed.keys()
    if real:
        try:
            made = batch(real)
        except Exception as error:
            failed |= _culprits(batch, real, error)
            real -= failed.keys()
            made = batch(real) if real else ()
    return [failed[i] if i in failed else made[i] for i in range(len(inputs))]


def describe(error: Exception) -> str:
    """One line for a row: the kind of error and its message."""
    return f"{type(error).__name__}: {first_line(error)}"


def _culprits(batch: Callable[[set[int]], object], real: set[int], error: Exception) -> dict[int, Exception]:
    everyone = dict.fromkeys(real, error)
    if isinstance(error, OutOfMemoryError) or len(real) == 1 or _raises(batch, set()):
        return everyone
    alone = {index: _raises(batch, {index}) for index in sorted(real)}
    return {index: found for index, found in alone.items() if found} or everyone


def _raises(batch: Callable[[set[int]], object], real: set[int]) -> Exception | None:
    try:
        batch(real)
    except Exception as error:
        return error
    return None
