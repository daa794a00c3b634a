"""Rounds of best-of-N and of learning, by turns."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from t2i_tools.counting.moves.base import Move, State
from t2i_tools.counting.moves.gradient import GradientMove
from t2i_tools.counting.moves.seeds import NextSeeds
from t2i_tools.counting.objective import Trial


class ExploreThenLearn(Move):
    """What is learned and best-of together: some new seeds, then token or noise on the best of them, and so on."""

    def __init__(self, learned: GradientMove, explore: int):
        super().__init__(learned.seeds)
        self.fresh, self.learned, self.explore = NextSeeds(learned.seeds), learned, explore
        self.left = explore
        self.best: tuple[float, tuple[int, ...]] | None = None

    def propose(self) -> Trial:
        if self.left:
            self.trial = self.fresh.propose()
            return self.trial
        return self.learned.propose()

    def learn(self, error: float, surplus: Sequence[Sequence[int]], whole: bool = True) -> float | None:
        if not self.left:
            return self.learned.learn(error, surplus, whole)
        self.left -= 1
        if self.best is None or error < self.best[0]:
            self.best = (error, self.trial.seeds)
        if not self.left:
            self.learned.forget(self.best[1])
        return None

    def restart(self) -> bool:
        if not self.left:
            self.left, self.best = self.explore, None
            self.learned.forget(self.learned.seeds)
        return True

    def state(self) -> State:
        error, seeds = self.best or (-1.0, self.seeds)
        own = {"left": torch.tensor(self.left), "error": torch.tensor(error).double(), "chosen": torch.tensor(seeds)}
        return own | self.fresh.state() | self.learned.state()

    def restore(self, state: State) -> None:
        self.left, error = int(state["left"]), float(state["error"])
        self.best = None if error < 0 else (error, tuple(state["chosen"].tolist()))
        self.fresh.restore(state)
        self.learned.restore(state)
