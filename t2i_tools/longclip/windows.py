"""The tokens of a prompt laid out in windows of the length that a text encoder reads."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Literal, NamedTuple, TypeAlias

from t2i_tools.longclip.syntax import Piece
from t2i_tools.models.prompts import WORD

Split: TypeAlias = Literal["words", "sentences"]
VECTOR = re.compile(r"(.*?)(?:_([0-9]{1,6}))?", re.DOTALL)


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


def keep_together(tokens: Sequence[Token], names: Mapping[int, str]) -> list[Token]:
    """The vectors of one learned word as one word: "<x> <x>_1" as diffusers writes it, "<x> <x>" as a count token does.

    Args:
        tokens: Of one part of a prompt.
        names: Id of a learned word's vector -> how it is written.
    """
    kept: list[Token] = []
    for token in tokens:
        if kept and _goes_on(names.get(kept[-1].id), names.get(token.id)):
            token = token._replace(word=kept[-1].word)
        kept.append(token)
    return kept


def _goes_on(name: str | None, following: str | None) -> bool:
    if name is None or following is None:
        return False
    match = VECTOR.fullmatch(name)
    assert match is not None  # it takes any name
    base, number = match.groups()
    return name == following or following == f"{base}_{int(number or 0) + 1}"


def fill_windows(parts: Sequence[Sequence[Token]], room: int, split: Split = "words") -> list[list[Token]]:
    """Windows of at most `room` tokens; a part begins a new one, and a word goes whole into the next if it can.

    With split="sentences" a sentence goes whole into the next window if it can, so that no sentence that fits in one is
    read in two.
    """
    windows: list[list[Token]] = []
    for part in parts:
        window: list[Token] = []
        for sentence in _sentences(part) if split == "sentences" else [part]:
            if split == "sentences" and len(window) + len(sentence) > room >= len(sentence):
                windows.append(window)
                window = []
            for _, group in groupby(sentence, lambda token: token.word):
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


def _sentences(part: Sequence[Token]) -> Iterator[list[Token]]:
    """Tokens up to a full stop, question or exclamation mark with a blank behind it."""
    sentence: list[Token] = []
    for token in part:
        if sentence and sentence[-1].text.rstrip().endswith((".", "!", "?")) and token.text[:1].isspace():
            yield sentence
            sentence = []
        sentence.append(token)
    if sentence:
        yield sentence


def text_of(tokens: Iterable[Token]) -> str:
    """What the tokens stand for, as written."""
    return "".join(token.text for token in tokens).strip()


def shortened(text: str, most: int = 100) -> str:
    """A text with its middle left out where it is longer than `most`, for a message."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


class Row(NamedTuple):
    """What a text encoder is given: ids, their weights, and 1 where there is no filling."""

    ids: list[int]
    weights: list[float]
    mask: list[int]


def pad_windows(windows: Sequence[Sequence[Token]], size: int, number: int, bos: int, eos: int, pad: int) -> Row:
    """`number` windows of `size` tokens in a row: begin, tokens, end, filling; those beyond the prompt are empty."""
    row = Row([], [], [])
    for tokens in [*windows, *[[]] * (number - len(windows))]:
        rest = size - len(tokens) - 2
        row.ids.extend([bos, *(token.id for token in tokens), eos, *[pad] * rest])
        row.weights.extend([1.0, *(token.weight for token in tokens), *[1.0] * (rest + 1)])
        row.mask.extend([1] * (len(tokens) + 2) + [0] * rest)
    return row
