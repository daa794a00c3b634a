"""The token on the line through the embeddings of the numbers' words, by bisection on how many objects are too many.

    v(x) = (1 - f) e(k) + f e(k + 1),    k = floor(x),  f = x - k,  e(k) the embedding of the word of k

A word of several tokens is as many rows of e(k), and so is the token. The rows of a word with fewer or more tokens than
the word of n are laid evenly over the token's rows, and interpolated between them.

A model that draws eight when asked for seven draws seven somewhere between its "six" and its "seven". The number of
objects in the image of one seed grows with x but for a little noise, so that bisection finds the place, by images
and a counter alone: there is no gradient. Where the number jumps over n, or the line has no more to give, the next seed
begins, or on one seed trials in random directions from the place follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

import torch

from t2i_tools.counting.moves.base import Move, State, Vector
from t2i_tools.counting.moves.seeds import NextSeeds
from t2i_tools.counting.objective import Trial

TOLERANCE = 1 / 16  # of a number: closer places mostly give the same image
OUTWARD_STEP = 0.7  # outward for each object too many: where a word has an effect, it has rather more than it says


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

    def learn(self, surplus: float) -> None:
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
        step = math.copysign(max(OUTWARD_STEP * abs(surplus), 0.5), surplus)
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
    """One line per token; all images of a trial say together how many are too many.

    The first trial of each seed is the plain image, of the prompt as a person would say it. On one seed, the count of
    a trial that an early look ended may be off by one: before the line is given up, a place that came within one is
    drawn whole. Where other seeds may be taken, one of those finds n sooner than that or a random direction does (dev,
    124 lines of the bundled model: 0.15 exact images per image's worth, 0.30 by other seeds).
    """

    def __init__(self, lines: list[Line], seeds: Sequence[int], length: float, other_seeds: bool = False) -> None:
        """length: of a step in a random direction, in the vectors' units. other_seeds: whether the end of a line is
        followed by the next seed, at the number's own word, and not by random directions.
        """
        super().__init__(seeds)
        self.lines, self.length, self.other_seeds = lines, length, other_seeds
        self.first = [line.bracket.place for line in lines]
        self.fresh, self.is_plain = NextSeeds(seeds), True
        self.doubt: list[torch.Tensor] | None = None  # vectors whose trial was ended by a look that was off by one
        self.checks_doubt = False
        self.seeds = self.fresh.propose().seeds
        self.generator = torch.Generator().manual_seed(seeds[0])

    def propose(self) -> Trial:
        return Trial(self.seeds, plain=self.is_plain, whole=self.checks_doubt)

    def learn(self, error: float, surplus: Sequence[Sequence[int]], whole: bool = True) -> float | None:
        if not whole and error == 1 and self.doubt is None:
            self.doubt = [vector.tensor.detach().clone() for vector in self._vectors()]
        if self.checks_doubt:
            self.checks_doubt, self.doubt = False, None
        self.is_plain = False
        wrong = [(line, one) for line, one in zip(self.lines, surplus, strict=True) if any(one)]
        for line, one in wrong:
            line.bracket.learn(sum(one) / len(one))
            line.write()
        ended = [line for line, _ in wrong if line.bracket.done]
        if ended and self.other_seeds:
            self._begin_anew()
        elif ended and self.doubt is not None:
            self._write(self.doubt)
            self.checks_doubt = True
        else:
            for line in ended:
                self._stray(line.vectors)
        return None

    def restart(self) -> bool:
        return self.other_seeds

    def _begin_anew(self) -> None:
        self.seeds = self.fresh.propose().seeds
        self.is_plain, self.doubt = True, None
        for line, place in zip(self.lines, self.first, strict=True):
            line.bracket = Bracket(place, line.bracket.top)
            line.write()

    def _stray(self, vectors: list[Vector]) -> None:
        for vector in vectors:
            step = torch.randn(vector.tensor.shape, generator=self.generator)
            vector.tensor.add_(step, alpha=self.length * vector.unit)

    def _vectors(self) -> list[Vector]:
        return [vector for line in self.lines for vector in line.vectors]

    def _write(self, tensors: Sequence[torch.Tensor]) -> None:
        for vector, tensor in zip(self._vectors(), tensors, strict=True):
            vector.tensor.copy_(tensor)

    def state(self) -> State:
        flags = [self.is_plain, self.checks_doubt]
        state = {"random": self.generator.get_state(), "flags": torch.tensor(flags), "seeds": torch.tensor(self.seeds)}
        for index, line in enumerate(self.lines):
            state[f"bracket.{index}"] = torch.tensor(astuple(line.bracket), dtype=torch.float64)
        state |= {f"vector.{vector.name}": vector.tensor for vector in self._vectors()}
        state |= {f"doubt.{index}": tensor for index, tensor in enumerate(self.doubt or [])}
        return state | self.fresh.state()

    def restore(self, state: State) -> None:
        self.generator.set_state(state["random"])
        self.is_plain, self.checks_doubt = map(bool, state["flags"].tolist())
        self.seeds = tuple(state["seeds"].tolist())
        self.fresh.restore(state)
        for index, line in enumerate(self.lines):
            line.bracket = Bracket(*state[f"bracket.{index}"].tolist())
        self._write([state[f"vector.{vector.name}"] for vector in self._vectors()])
        doubt = [state[key] for key in sorted(state) if key.startswith("doubt.")]
        self.doubt = doubt or None
