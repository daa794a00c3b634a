"""The moves that change nothing but the seed: the plain image, and best-of-N."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from t2i_tools.counting.moves.base import Move, State
from t2i_tools.counting.objective import Trial

SEED_STRIDE = 1_000_003  # between the seeds that one image tries, so that the next image's do not meet them


class PlainMove(Move):
    """One trial of the seeds as they are."""

    once = True


class NextSeeds(Move):
    """Best-of-N: the first trial has the seeds as they are, every further one others."""

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__(seeds)
        self.trials = 0

    def propose(self) -> Trial:
        seeds = tuple((seed + SEED_STRIDE * self.trials) % 2**63 for seed in self.seeds)
        self.trials += 1
        return Trial(seeds)

    def state(self) -> State:
        return {"trials": torch.tensor(self.trials)}

    def restore(self, state: State) -> None:
        self.trials = int(state["trials"])
