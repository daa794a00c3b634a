"""What a prompt asks for that can be counted, and what a judge that steers nothing counts in its image."""

import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from PIL import Image

from t2i_tools.bundled.scenes import LABELS, plural
from t2i_tools.images.number_words import number_word

if TYPE_CHECKING:
    from t2i_tools.detectors import Counter

NUMBERS = {number_word(n): n for n in range(1, 21)} | {"a": 1, "an": 1}
CLASSES = {name: label for label in LABELS for name in (label, plural(label))}
ASKED = re.compile(rf"\b({'|'.join(NUMBERS)}|[1-9]\d?)\s+({'|'.join(sorted(CLASSES, key=len, reverse=True))})\b")

ANY_CASE = re.compile(ASKED.pattern, re.IGNORECASE)


def asked_counts(prompt: str) -> dict[str, int]:
    """Class -> how many of it a prompt asks for, of the classes that the bundled judge knows.

    A class that is asked for twice ("two cats ... a cat") is asked for in sum.
    """
    counts: dict[str, int] = {}
    for number, name in ASKED.findall(prompt.lower()):
        label = CLASSES[name]
        counts[label] = counts.get(label, 0) + (NUMBERS.get(number) or int(number))
    return counts


def counted_prompt(prompt: str) -> tuple[dict[str, int], str] | None:
    """The counts that a prompt asks for, and the prompt with "{count}", or "{class}" of several, for their numbers.

    None where it asks for none, or for a class twice. Braces that stand in it already would be read as such a place.
    """
    counts = asked_counts(prompt)
    if not counts or "{" in prompt or len(ANY_CASE.findall(prompt)) != len(counts):
        return None

    def place(found: "re.Match[str]") -> str:
        name = "count" if len(counts) == 1 else CLASSES[found[2].lower()]
        return f"{{{name}}}{found[0][len(found[1]) :]}"

    return counts, ANY_CASE.sub(place, prompt)


def count_objects(
    image: Image.Image, asked: Mapping[str, int | None], judge: "Counter | None" = None
) -> list[dict[str, Any]]:
    """One record per class: label, asked, counted, and boxes (x0, y0, x1, y1) in pixels; no "asked" where that is None.

    judge: the bundled one.
    """
    judge, records = judge or bundled_judge(), []
    for label, n in asked.items():
        found = judge.detect([image], label)[0]
        boxes = [[round(side) for side in box] for box in found.boxes.tolist()]
        record = {"label": label} | ({} if n is None else {"asked": n})
        records.append(record | {"counted": found.count, "boxes": boxes})
    return records


@cache
def bundled_judge() -> "Counter":
    """Opened once."""
    from t2i_tools.bundled import load_bundled_judge

    return load_bundled_judge()
