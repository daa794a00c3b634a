"""Weights in a prompt, as AUTOMATIC1111 writes them: (word:1.3), (word), [word], BREAK."""

import re
from typing import NamedTuple

STEP = 1.1
MARK = re.compile(
    r"""\\(?P<escaped>[\\()\[\]])
    | (?P<open>[(\[])
    | (?: :\s* (?P<weight>[+-]?(?:\d+\.?\d*|\.\d+)) \s*)? (?P<close>\))
    | (?P<less>\])
    | (?P<new>\bBREAK\b)""",
    re.VERBOSE,
)


class Piece(NamedTuple):
    """A stretch of text and its weight."""

    text: str
    weight: float = 1.0


def parse_prompt(prompt: str) -> list[list[Piece]]:
    r"""The parts of a prompt between its BREAKs, each as pieces of one weight.

    "(word:1.3)" multiplies the weight by 1.3, "(word)" by 1.1, "[word]" divides it by 1.1, nested ones multiply.
    "\(", "\)", "\[", "\]" are plain brackets, and so are those without a partner.
    """
    parts: list[list[Piece]] = [[]]
    opened: list[int] = []  # in the present part, where its brackets stand
    end = 0
    for match in MARK.finditer(prompt):
        pieces = parts[-1]
        pieces.append(Piece(prompt[end : match.start()]))
        end = match.end()
        if match["new"]:
            parts.append([])
            opened = []
        elif match["open"]:
            opened.append(len(pieces))
            pieces.append(Piece(match["open"]))
        elif match["escaped"]:
            pieces.append(Piece(match["escaped"]))
        elif opened and pieces[opened[-1]].text == ("(" if match["close"] else "["):
            factor = float(match["weight"] or STEP) if match["close"] else 1 / STEP
            start = opened.pop()
            pieces[start:] = [Piece(text, weight * factor) for text, weight in pieces[start + 1 :]]
        else:
            pieces.append(Piece(match[0]))
    parts[-1].append(Piece(prompt[end:]))
    return [_merged(pieces) for pieces in parts]


def _merged(pieces: list[Piece]) -> list[Piece]:
    """Neighbours of one weight as one piece; empty ones left out."""
    merged: list[Piece] = []
    for piece in pieces:
        if merged and merged[-1].weight == piece.weight:
            merged[-1] = Piece(merged[-1].text + piece.text, piece.weight)
        elif piece.text:
            merged.append(piece)
    return merged
