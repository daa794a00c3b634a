"""What an evaluation makes or judges: items, from prompts x methods x sizes, each with a seed and a key of its own."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from t2i_tools.errors import InputError
from t2i_tools.images.generate import Request
from t2i_tools.images.sizes import Fit, Size

FILLER = "a picture"
SEARCHES = ("best_of", "bisection+best_of")  # methods of `t2i_tools.counting` that a counter steers
SEED_BITS = 48  # any JSON reader keeps them exactly


@dataclass(frozen=True)
class Item:
    """One image to make and judge, or, with `image`, one to judge only.

    label, count: the class that is asked for and how often; at_least: more are as right.
    size: (height, width) in pixels, None for the model's own.
    image: path of an image made elsewhere; digest: of its bytes.
    """

    prompt: str
    seed: int = 0
    method: str = "plain"
    label: str | None = None
    count: int | None = None
    negative: str | None = None
    size: Size | None = None
    fit: Fit = "crop"
    steps: int | None = None
    guidance: float | None = None
    at_least: bool = False
    image: str | None = None
    digest: str | None = None

    @property
    def is_search(self) -> bool:
        """Whether the image comes from a count search; False for images made elsewhere."""
        return self.method in SEARCHES and not self.image

    def request(self) -> Request:
        """What `generate_images` takes. Raises InputError when a value is out of range."""
        return Request(self.prompt, self.seed, self.negative, self.size, self.fit, self.steps, self.guidance)

    def filler(self) -> "Item":
        """What stands in for this item in its batch when it fails: the same shape, and nothing of its own."""
        return replace(self, prompt=FILLER, seed=0, negative=self.negative and "", label=None, count=None)

    def shape(self) -> tuple:
        """What the items of one batch have in common."""
        return (self.method, self.size, self.fit, self.steps, self.guidance, self.negative is None)


def make_items(
    rows: Iterable[Mapping[str, Any]], methods: Sequence[str] = ("plain",), sizes: Sequence[Size | None] = (None,)
) -> list[Item]:
    """The items of prompts x methods x sizes; a row's own size goes before `sizes`.

    rows: fields of `Item`, and `number` images of each. Image i has the row's seed + i or, without one, a seed drawn
    from prompt, class, count and i: methods, sizes and models start from the same noise and compare in pairs.
    Raises InputError for two equal items.
    """
    seen: dict[str, int] = {}
    seeded = [one for row in rows for one in _numbered(dict(row), seen)]
    items = [
        Item(**{"size": size, **row, "method": method})
        for method in methods
        for size in sizes
        for row in seeded
        if "size" not in row or size == sizes[0]
    ]
    known: set[Item] = set()
    for item in items:
        if item in known:
            raise InputError(f"prompt {item.prompt!r} comes twice with seed {item.seed}: give each its own, or none")
        known.add(item)
    return items


def item_key(item: Item, context: Mapping[str, Any]) -> str:
    """A hash (32 hex digits) of all that determines the item: its fields and the model, settings and versions."""
    return digest({"item": asdict(item), "context": dict(context)})[:32]


def digest(value: Any) -> str:
    """SHA-256 of a value that JSON can hold, independent of the order of its names."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def batches(items: Sequence[Item], batch: int) -> list[list[int]]:
    """Indices of items in batches of equal shape, at most `batch` in each, in the items' order.

    Each search forms its own batch: it makes one image at a time, and an interrupted run then loses at most one.
    """
    groups: dict[tuple, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item.shape(), []).append(index)
    sizes = [(group, 1 if items[group[0]].is_search else batch) for group in groups.values()]
    return [group[start : start + size] for group, size in sizes for start in range(0, len(group), size)]


def _numbered(row: dict[str, Any], seen: dict[str, int]) -> list[dict[str, Any]]:
    number, first = row.pop("number", 1), row.pop("seed", None)
    if number < 1:
        raise InputError(f"number {number} is out of range: use 1 or more")
    if first is not None:
        return [{**row, "seed": first + index} for index in range(number)]
    name = digest([row.get(field) for field in ("prompt", "label", "count")])
    start = seen.get(name, 0)
    seen[name] = start + number
    return [{**row, "seed": int(digest([name, start + i]), 16) % 2**SEED_BITS} for i in range(number)]
