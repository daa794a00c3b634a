"""What the search between number words is compared with: each changes a search's line before it begins."""

import math
import random
from collections.abc import Callable

import torch

from t2i_tools.counting import Search
from t2i_tools.counting.moves.bisection import Bisection, Bracket


class WholeNumbers(Bracket):
    """Bisection over whole numbers: the words themselves, each at most once."""

    def learn(self, surplus: float) -> None:
        before = self.place
        super().learn(surplus)
        if self.done:
            return
        if self.low < self.high:
            self.done = self.high - self.low <= 1
            self.place = before if self.done else float((self.low + self.high) // 2)
        else:
            step = max(1, round(abs(self.place - before)))
            self.place = min(max(before - math.copysign(step, surplus), 1.0), self.top)
            self.done = self.place == before


def by_words_alone(search: Search) -> None:
    """The neighboring number words, without a token between them."""
    for line in bisection(search).lines:
        line.bracket = WholeNumbers(line.bracket.place, line.bracket.top)


def by_shuffled_words(search: Search) -> None:
    """The line through the same words in an order drawn once; n keeps its place."""
    for line in bisection(search).lines:
        words, n = line.words, int(line.bracket.place)
        others = [number for number in range(1, int(line.bracket.top) + 2) if number != n]
        shuffled = others.copy()
        random.Random(n).shuffle(shuffled)
        order = dict(zip(others, shuffled, strict=True)) | {n: n}
        line.words = lambda number, words=words, order=order: words(order[number])


def by_a_random_line(search: Search) -> None:
    """A straight line through the word of n in a random direction, with steps as long as between its neighbors."""
    generator = torch.Generator().manual_seed(search.move.seeds[0])
    for line in bisection(search).lines:
        n = int(line.bracket.place)
        here, after = line.words(n), line.words(n + 1)
        ways = []
        for one, other in zip(here, after, strict=True):
            way = torch.randn(one.shape, generator=generator)
            ways.append(way * (other - one).norm() / way.norm())

        def words(number: int, n: int = n, here=here, ways=ways) -> list[torch.Tensor]:
            return [one + (number - n) * way for one, way in zip(here, ways, strict=True)]

        line.words = words


def bisection(search: Search) -> Bisection:
    """The move of a search between number words."""
    assert isinstance(search.move, Bisection)
    return search.move


PREPARE: dict[str, Callable[[Search], None]] = {
    "number words alone": by_words_alone,
    "shuffled words": by_shuffled_words,
    "random line": by_a_random_line,
}
