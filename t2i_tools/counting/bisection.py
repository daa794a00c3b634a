"""The token on the line through the embeddings of the numbers' words, by bisection on how many objects are too many.

    v(x) = (1 - f) e(k) + f e(k + 1),    k = floor(x),  f = x - k,  e(k) the embedding of the word of k

A model that draws eight when asked for seven draws seven somewhere between its "six" and its "seven". The number of
objects in the picture of one seed grows with x but for a little noise, so that bisection finds the place, by pictures
and a counter alone: there is no gradient. Where the number jumps over n, or the line has no more to give, trials in
random directions from the place follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

import torch

from t2i_tools.counting.move import Move, NewSeeds, State, Vector

TOLERANCE = 1 / 16  # of a number: closer places mostly give the same picture
STRIDE = 0.7  # outward for each object too many: where a word has an effect, it has rather more than it says


@dataclass
class Bracket:
    """Bisection for the place in [1, top] at which the surplus, found - wanted, turns from less than 0 to more.

    low, high: the nearest places with too few and with too many, nan where none is known. done: `place` stays, because
    it is right or bisection has come to its end there.
    """

    place: float
    top: float
    low: float = math.nan
    high: float = math.nan
    best_place: float = math.nan
    best_surplus: float = math.inf
    done: bool = False

    def tell(self, surplus: float) -> None:
        """Go on from the surplus found at `place`."""
        if self.done or not surplus:
            self.done = True
            return
        is_lost = abs(surplus) > 1.5 * abs(self.best_surplus) + 0.5  # the line leads elsewhere, as words unknown do
        if abs(surplus) < abs(self.best_surplus):
            self.best_place, self.best_surplus = self.place, surplus
        if surplus > 0:
            self.high = self.place
        else:
            self.low = self.place
        if self.low < self.high:
            self.done = self.high - self.low <= TOLERANCE
            self.place = (self.low + self.high) / 2
        else:
            self._step_out(surplus, is_lost)

    def _step_out(self, surplus: float, is_lost: bool) -> None:
        step = math.copysign(max(STRIDE * abs(surplus), 0.5), surplus)
        further = min(max(self.place - step, 1.0), self.top)
        self.done = is_lost or further == self.place
        self.place = self.best_place if self.done else further


@dataclass
class Line:
    """A token's vectors and its bracket. words: number -> the embeddings of its word, in the order of the vectors."""

    bracket: Bracket
    vectors: list[Vector]
    words: Callable[[int], list[torch.Tensor]]

    @torch.no_grad()
    def write(self) -> None:
        """The vectors as they are at the bracket's place."""
        number = math.floor(self.bracket.place)
        share = self.bracket.place - number
        near, far = self.words(number), self.words(number + 1)
        for vector, one, other in zip(self.vectors, near, far, strict=True):
            vector.tensor.copy_(torch.lerp(one, other, share) if share else one)


class Bisection(Move):
    """One line a token; all pictures of a trial tell it together how many are too many."""

    def __init__(self, lines: list[Line], seeds: Sequence[int], length: float, rounds: int | None = None) -> None:
        """length: of a step in a random direction, in the vectors' units. rounds: after so many of these, other seeds
        begin at the number's own word; None for never.
        """
        super().__init__(seeds)
        self.lines, self.length, self.rounds = lines, length, rounds
        self.first = [line.bracket.place for line in lines]
        self.fresh, self.strays = NewSeeds(seeds), 0
        self.seeds = self.fresh.propose().seeds
        self.generator = torch.Generator().manual_seed(seeds[0])

    def learn(self, error: float, surplus: Sequence[Sequence[int]]) -> float | None:
        wrong = [(line, found) for line, found in zip(self.lines, surplus, strict=True) if any(found)]
        for line, found in wrong:
            line.bracket.tell(sum(found) / len(found))
            line.write()
        ended = [line for line, _ in wrong if line.bracket.done]
        self.strays += bool(ended)
        if self.rounds is not None and self.strays > self.rounds:
            self._begin_anew()
        else:
            for line in ended:
                self._stray(line.vectors)
        return None

    def restart(self) -> bool:
        return self.rounds is not None

    def _begin_anew(self) -> None:
        self.seeds, self.strays = self.fresh.propose().seeds, 0
        for line, place in zip(self.lines, self.first, strict=True):
            line.bracket = Bracket(place, line.bracket.top)
            line.write()

    def _stray(self, vectors: list[Vector]) -> None:
        for vector in vectors:
            step = torch.randn(vector.tensor.shape, generator=self.generator)
            vector.tensor.add_(step, alpha=self.length * vector.unit)

    def state(self) -> State:
        own = {"random": self.generator.get_state(), "strays": torch.tensor(self.strays)}
        state = own | {"seeds": torch.tensor(self.seeds)} | self.fresh.state()
        for index, line in enumerate(self.lines):
            state[f"bracket.{index}"] = torch.tensor(astuple(line.bracket), dtype=torch.float64)
            state |= {f"vector.{vector.name}": vector.tensor for vector in line.vectors}
        return state

    def restore(self, state: State) -> None:
        self.generator.set_state(state["random"])
        self.strays, self.seeds = int(state["strays"]), tuple(state["seeds"].tolist())
        self.fresh.restore(state)
        for index, line in enumerate(self.lines):
            line.bracket = Bracket(*state[f"bracket.{index}"].tolist())
            for vector in line.vectors:
                vector.tensor.copy_(state[f"vector.{vector.name}"])
