"""Scenes with long captions for `run.py`: what is asked for, where, and on which side of a cut."""

from dataclasses import dataclass
from itertools import product

import numpy as np

from t2i_tools.bundled.scenes import (
    COLOURS,
    COLUMNS,
    LABELS,
    MAX_COUNT,
    ROWS,
    WIDE_COLUMNS,
    Scene,
    count_phrase,
    long_caption,
    phrase,
    scene,
)
from t2i_tools.longclip import Ruler

FIRST_SEED = 20_000_000  # beyond those of every training and of the other evaluations
COUNTS = (10, 11, 12)  # objects of a scene whose long caption is beyond 77 tokens


def full_scenes(split: str, number: int, first: int = FIRST_SEED) -> list[Scene]:
    """Layouts of ten to twelve objects, whose long captions all differ."""
    drawn = {}
    seed = first
    while len(drawn) < number:
        one = scene(seed, split=split, kind="layouts", count=COUNTS[seed % len(COUNTS)])
        drawn.setdefault(long_caption(one), one)
        seed += 1
    return list(drawn.values())


def short_scenes(split: str, number: int, first: int = FIRST_SEED) -> list[Scene]:
    """Scenes as in training, whose short captions all differ."""
    drawn = {}
    seed = first
    while len(drawn) < number:
        one = scene(seed, split=split)
        drawn.setdefault(one.caption, one)
        seed += 1
    return list(drawn.values())


def short_prompts(number: int) -> list[tuple[str, str, int]]:
    """(prompt, class, count): every class, 1 to 12 objects, every background; the first of an order drawn once."""
    every = [
        (f"a picture of {count_phrase(label, n)} on a {colour} background", label, n)
        for label, n, colour in product(LABELS, range(1, MAX_COUNT + 1), COLOURS)
    ]
    return [every[i] for i in np.random.default_rng(0).permutation(len(every))[:number]]


@dataclass(frozen=True)
class Place:
    """An object that a prompt puts somewhere. order: its place in the prompt. tail: whether CLIP's 77 tokens end
    before it does."""

    label: str
    where: str
    order: int
    tail: bool


def prompt_of(drawn: Scene, order: list[int]) -> str:
    """The layout in the wording of the training's captions, objects in an order."""
    parts = [f"{'an' if drawn.labels[i][0] in 'aeiou' else 'a'} {drawn.labels[i]} {drawn.places[i]}" for i in order]
    return f"a picture of {', '.join(parts)}"


def places_of(drawn: Scene, order: list[int], cut: Ruler) -> list[Place]:
    """The objects of `prompt_of`. cut: its ruler under "truncate"; an object is read if all of its words are."""
    read = sum(word.read and word.text == "," for word in cut.words) + (not cut.cut)
    return [Place(drawn.labels[i], drawn.places[i], k, k >= read) for k, i in enumerate(order)]


def seen_places(labels: list[str], boxes: np.ndarray, wide: bool) -> set[tuple[str, str]]:
    """(class, phrase) of each object found in a picture of 128x128. wide: of four columns, as with ten or more."""
    columns = WIDE_COLUMNS if wide else COLUMNS
    seen = set()
    for label, (left, top, right, bottom) in zip(labels, boxes, strict=True):
        column = min(int((left + right) / 256 * len(columns)), len(columns) - 1)
        seen.add((label, phrase((ROWS[min(int((top + bottom) / 256 * 3), 2)], columns[column]))))
    return seen
