"""What the stages of an evaluation write, a row per item: the contract between them, the store and the reports."""

from __future__ import annotations

from typing import Literal, TypedDict, TypeVar

from t2i_tools.images.sizes import Size

Status = Literal["ok", "error", "skipped", "missing"]


class Row(TypedDict):
    """What every stage's row has. key: of the item in the manifest."""

    key: str
    status: Status


class FailedRow(Row, total=False):
    """error: one line, with the status "error"; "skipped" is what an earlier stage has no image for."""

    error: str


class SearchFields(TypedDict, total=False):
    """Fields that a count search adds to the row of its image.

    final_seed: seed of the image that the search returned; `seed` is the one it started from. counted: objects that
    the counter saw in that image. trials: images that the search tried. stopped: why it ended, see `Result`. spent:
    what it cost, in plain images' worth.
    """

    final_seed: int
    counted: int
    trials: int
    stopped: str
    spent: float


class GenerateRow(FailedRow, SearchFields, total=False):
    """The generated image of one item.

    file: path, relative to the evaluation's folder, or absolute for an image made elsewhere. sha256: of the file.
    width, height: in pixels. denoiser: forward passes of the denoiser; with guidance, each step counts twice.
    """

    file: str
    sha256: str
    width: int
    height: int
    denoiser: int


class FoundObject(TypedDict):
    """An object in an image. box: left, top, right, bottom in pixels."""

    label: str
    score: float
    box: tuple[float, float, float, float]  # in JSON a list


class DetectRow(FailedRow, total=False):
    """What the judge sees."""

    objects: list[FoundObject]


class Counts(TypedDict, total=False):
    """found: objects of the class asked for. others: all other ones. exact: as many as asked for."""

    found: int
    others: int
    exact: bool


class ClipRow(TypedDict, total=False):
    """CLIP scores of an image with its prompt and with a partner's."""

    clip: float
    clip_mismatched: float


class ScoreRow(FailedRow, Counts, ClipRow, total=False):
    """What was asked for compared with what is there."""


class MergedRow(GenerateRow, DetectRow, ScoreRow, total=False):
    """An item with all that is known of it. index: its place in the manifest. stage: where an error came from."""

    index: int
    stage: str
    prompt: str
    seed: int
    method: str
    label: str
    count: int
    negative: str
    size: list[int]
    fit: str
    at_least: bool
    steps: int
    guidance: float
    image: str
    digest: str


AnyRow = TypeVar("AnyRow", GenerateRow, DetectRow, ScoreRow)


def asked_size(row: MergedRow) -> Size | None:
    """(height, width) in pixels that was asked for, None for the model's own."""
    if not row.get("size"):
        return None
    height, width = row["size"]
    return height, width
