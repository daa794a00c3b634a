"""The tokens of a prompt laid out in windows of the length that a text encoder reads."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from t2i_tools.longclip.syntax import Piece
from t2i_tools.prompts import WORD


class Token(NamedTuple):
    """word: its number in the prompt. text: what it stands for as written, with the blanks before it."""

    id: int
    weight: float
    word: int
    text: str


def read_tokens(parts: Sequence[Sequence[Piece]], tokenize: Callable[[str], tuple]) -> list[list[Token]]:
    """The tokens of each part of a prompt. tokenize: text -> (ids, (start, end) of each in the text)."""
    word, read = 0, []
    for pieces in parts:
        tokens = []
        for text, weight in pieces:
            ends, last = [match.end() for match in WORD.finditer(text)], 0
            for token, (start, end) in zip(*tokenize(text), strict=True):
                start += len(text[start:end]) - len(text[start:end].lstrip())
                tokens.append(Token(token, weight, word + bisect_right(ends, start), text[last:end]))
                last = end
            word += len(ends) + 1
        read.append(tokens)
    return read


def fill_windows(parts: Sequence[Sequence[Token]], room: int) -> list[list[Token]]:
    """Windows of at most `room` tokens; a part begins a new one, and a word goes whole into the next if it can."""
    windows: list[list[Token]] = []
    for part in parts:
        window: list[Token] = []
        for _, group in groupby(part, lambda token: token.word):
            word = list(group)
            if len(window) + len(word) > room >= len(word):
                windows.append(window)
                window = []
            for token in word:
                if len(window) == room:
                    windows.append(window)
                    window = []
                window.append(token)
        if window:
            windows.append(window)
    return windows or [[]]


def written(tokens: Iterable[Token]) -> str:
    """What the tokens stand for, as written."""
    return "".join(token.text for token in tokens).strip()


class Row(NamedTuple):
    """What a text encoder is given: ids, their weights, and 1 where there is no filling."""

    ids: list[int]
    weights: list[float]
    mask: list[int]


def lay_out(windows: Sequence[Sequence[Token]], size: int, number: int, bos: int, eos: int, pad: int) -> Row:
    """`number` windows of `size` tokens in a row: begin, tokens, end, filling; those beyond the prompt are empty."""
    row = Row([], [], [])
    for tokens in [*windows, *[[]] * (number - len(windows))]:
        rest = size - len(tokens) - 2
        row.ids.extend([bos, *(token.id for token in tokens), eos, *[pad] * rest])
        row.weights.extend([1.0, *(token.weight for token in tokens), *[1.0] * (rest + 1)])
        row.mask.extend([1] * (len(tokens) + 2) + [0] * rest)
    return row
