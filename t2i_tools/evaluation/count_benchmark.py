"""A benchmark of counting by the rules of CoCoCount (Binyamin et al. 2024): class x count x scene, one seed a prompt.

The words are ours. Dev and test share no class, no wording of the scenes and no seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from t2i_tools.errors import InputError
from t2i_tools.images.number_words import number_word

SPLITS = ("dev", "test")
MAX_COUNT = 12
COUNTS = (2, 3, 4, 5, 7, 10)


@dataclass(frozen=True)
class Benchmark:
    """classes: singular -> plural. scenes: what follows the objects, "" for nothing. opening: what goes before."""

    name: str
    classes: Mapping[str, str]
    scenes: Sequence[str]
    opening: str


COCO_DEV = Benchmark(
    "counts-coco",
    {
        "apple": "apples",
        "bear": "bears",
        "bicycle": "bicycles",
        "bird": "birds",
        "boat": "boats",
        "bottle": "bottles",
        "cake": "cakes",
        "car": "cars",
        "chair": "chairs",
        "clock": "clocks",
        "cup": "cups",
        "dog": "dogs",
        "donut": "donuts",
        "elephant": "elephants",
        "kite": "kites",
        "sheep": "sheep",
    },
    ("", "on a meadow", "on a wooden floor", "by the water"),
    "a photo of",
)
COCO_TEST = Benchmark(
    "counts-coco",
    {
        "banana": "bananas",
        "book": "books",
        "bowl": "bowls",
        "cat": "cats",
        "cow": "cows",
        "horse": "horses",
        "orange": "oranges",
        "umbrella": "umbrellas",
    },
    ("", "in the snow", "on a sandy beach", "in front of a brick wall"),
    "a picture of",
)
COCO = {"dev": COCO_DEV, "test": COCO_TEST}


def counts_rows(
    benchmark: Benchmark, split: str, counts: Sequence[int] = COUNTS, number: int | None = None
) -> list[dict[str, Any]]:
    """Rows of prompt, label, count and seed for `make_items`; `number` of them, drawn evenly, or all.

    Every class comes with every count in every scene. A seed belongs to the split and the place in the full list,
    so that a smaller draw makes the same images. Raises InputError.
    """
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}: choose {' or '.join(SPLITS)}")
    if bad := [count for count in counts if not 1 <= count <= MAX_COUNT]:
        raise InputError(f"count {bad[0]} is out of range: the benchmark has 1 to {MAX_COUNT}")
    cells = list(product(benchmark.classes, counts, benchmark.scenes))
    first = 2**32 * (1 + SPLITS.index(split))
    rows = [
        {"prompt": prompt(benchmark, label, count, scene), "label": label, "count": count, "seed": first + index}
        for index, (label, count, scene) in enumerate(cells)
    ]
    if number is None or number >= len(rows):
        return rows
    if number < 1:
        raise InputError(f"{number} prompts are too few: use 1 or more")
    order = np.random.default_rng(SPLITS.index(split)).permutation(len(rows))
    return [rows[index] for index in sorted(order[:number].tolist())]


def prompt(benchmark: Benchmark, label: str, count: int, scene: str) -> str:
    """ "a photo of three apples on a meadow"."""
    name = label if count == 1 else benchmark.classes[label]
    return " ".join(word for word in (benchmark.opening, number_word(count), name, scene) if word)
