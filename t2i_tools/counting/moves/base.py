"""What every move of a search offers: the next trial, and what is learned from its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from t2i_tools.counting.objective import Trial

State = dict[str, torch.Tensor]


class Move:
    """How a search goes from one trial to the next. The base tries the same seeds again and learns nothing."""

    once = False  # whether the first trial is the only one

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = tuple(seeds)

    def propose(self) -> Trial:
        """Return the next trial."""
        return Trial(self.seeds)

    def learn(self, error: float, surplus: Sequence[Sequence[int]], whole: bool = True) -> float | None:
        """Take in how far the trial was off, after its backward pass if it had one.

        Args:
            error: see `Step`.
            surplus: objects counted less objects wanted, one list per class with one entry per image.
            whole: False where an early look ended the trial, so that the count may be off by one.

        Returns:
            The gradient's length, None without one.
        """
        return None

    def restart(self) -> bool:
        """Begin a new round after a stretch without success. Returns False if there is none."""
        return False

    def state(self) -> State:
        """Return everything that changes, as tensors."""
        return {}

    def restore(self, state: State) -> None:
        """Go on from what `state` returned."""


@dataclass(frozen=True)
class Vector:
    """One encoder's vectors (k, d) to learn. unit: root mean square of the embeddings it stands among."""

    name: str
    tensor: torch.Tensor
    unit: float
