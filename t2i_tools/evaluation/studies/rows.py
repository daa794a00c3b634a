"""What the studies write, a row per image or search: the contract between the scripts that measure and the reports."""

from typing import TypedDict

from t2i_tools.counting.compute import ComputeRow


class BriefSearchRow(TypedDict):
    """A search as far as it is compared by what the judge counts.

    key: class, number and seed, which methods are paired by. counted: by the counter that steered. judged: by the first
    judge, in the last image. kept: share of the plain image's objects that are still in place. similarity: to the plain
    image by CLIP. curve: (plain images' worth spent, judged by then), whenever there was a better image. images: plain
    images' worth of all of it.
    """

    key: str
    method: str
    label: str
    count: int
    seed: int
    counted: int
    judged: int
    curve: list[tuple[float, int]]
    kept: float | None
    similarity: float | None
    same_seed: bool
    looks: int
    images: float


class ClipFields(TypedDict, total=False):
    """100 cos of an image with its prompt, and with another cell's."""

    clip: float
    clip_mismatched: float


class SearchRow(BriefSearchRow, ClipFields):
    """A search with all that is known of it.

    judges: the count of each judge. area: mean area in pixels of what the first one sees, None where it sees nothing.
    """

    budget: float | None
    steps: int
    judges: dict[str, int]
    area: float | None
    compute: ComputeRow


class UseRow(TypedDict):
    """A count token used once. learned: the class that it was learned for. size: (height, width), None for the model's
    own; in JSON a list."""

    token: str
    n: int
    learned: str
    plain_count: int
    token_count: int
    condition: str
    label: str
    template: str
    seed: int
    steps: int
    guidance: float
    size: tuple[int, int] | None
    scheduler: str | None
