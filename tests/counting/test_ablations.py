"""The ablations of the search between number words change the line as they say."""

import pytest
from support.scripts import example_module

ablations = example_module("evaluations/counts/ablations")


def places(bracket, surplus) -> list[float]:
    """Where a bracket goes until it is done."""
    visited = []
    while not bracket.done:
        visited.append(bracket.place)
        bracket.learn(surplus(bracket.place))
    return visited


@pytest.mark.parametrize("more", [-4, -1, 0, 2, 3])
def test_number_words_alone_find_the_word_that_draws_n(more):
    bracket = ablations.WholeNumbers(place=7.0, top=12.0)
    visited = places(bracket, lambda place: place + more - 7)
    assert bracket.place == 7 - more
    assert all(place == int(place) for place in visited)
    assert len(set(visited)) == len(visited)


def test_number_words_alone_end_where_no_word_draws_n():
    bracket = ablations.WholeNumbers(place=7.0, top=12.0)
    visited = places(bracket, lambda place: 1 if place > 5 else -1)
    assert {5, 6} <= set(visited)
    assert all(place == int(place) for place in visited)
    assert len(set(visited)) == len(visited)
