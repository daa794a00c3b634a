"""What a search's next trial comes from: the base of all moves, and the plainest one, other seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from t2i_tools.counting.judging import Trial

STRIDE = 1_000_003  # between the seeds that one image tries, so that the next image's do not meet them
State = dict[str, torch.Tensor]


class Move:
    """Seeds as they are, once; the base of the other moves."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = tuple(seeds)

    def propose(self) -> Trial:
        """The next trial."""
        return Trial(self.seeds)

    def learn(self, error: float, surplus: Sequence[Sequence[int]]) -> float | None:
        """Take in how far the trial was off, after its backward pass if it had one. Returns the gradient's length.

        error: see `Step`. surplus: class by class, in each picture, found - wanted.
        """
        return None

    def restart(self) -> bool:
        """Begin a new round after a stretch without success; False if there is none."""
        return False

    def state(self) -> State:
        """Everything that changes, as tensors."""
        return {}

    def restore(self, state: State) -> None:
        """The inverse of `state`."""


class NewSeeds(Move):
    """Best-of-N: the first trial has the given seeds, every further one others."""

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__(seeds)
        self.trials = 0

    def propose(self) -> Trial:
        seeds = tuple((seed + STRIDE * self.trials) % 2**63 for seed in self.seeds)
        self.trials += 1
        return Trial(seeds)

    def state(self) -> State:
        return {"trials": torch.tensor(self.trials)}

    def restore(self, state: State) -> None:
        self.trials = int(state["trials"])


@dataclass(frozen=True)
class Vector:
    """One encoder's vectors (k, d) to learn. unit: root mean square of the embeddings it stands among."""

    name: str
    tensor: torch.Tensor
    unit: float
