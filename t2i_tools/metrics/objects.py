"""What becomes of objects at a size that the model was not trained at:

    recognized   share of images whose objects are mostly of the class asked for
    exact        share of images with exactly as many of it as were asked for
    duplication  ln(found / asked) over all images: 0 is right, 0.69 twice as many
    cut          share of objects that touch the image's edge
    area         mean pixels of an object's box

Each is a function of means over images, so that `intervals` can resample it.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from t2i_tools.metrics.checks import as_counts, same_length

if TYPE_CHECKING:
    from t2i_tools.detectors.detections import Detections

COLUMNS = ("recognized", "exact", "found", "asked", "cut", "area", "objects")
EDGE = 0.5  # pixels


def object_columns(
    found: "Sequence[Detections]", labels: Sequence[str], asked: Sequence[int], sizes: Sequence[tuple[int, int]]
) -> np.ndarray:
    """(n, 7) float64, a row of COLUMNS an image: what FIGURES take the means of, and the bootstrap resamples.

    found: what a judge saw in each. labels, asked: the class asked for and how often. sizes: (height, width) in
    pixels. Raises InputError.
    """
    counts = as_counts(asked, "asked counts")
    same_length(images=found, labels=labels, counts=counts, sizes=sizes)
    return np.array([_row(*one) for one in zip(found, labels, counts, sizes, strict=True)], dtype=np.float64)


def _row(found: "Detections", label: str, asked: int, size: tuple[int, int]) -> tuple[float, ...]:
    boxes = np.asarray(found.boxes, dtype=np.float64).reshape(-1, 4)
    n = found.of(label).count
    height, width = size
    cut = (boxes[:, :2] < EDGE).any(1) | (boxes[:, 2:] > np.array([width, height]) - EDGE).any(1)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return 2 * n > found.count, n == asked, n, asked, cut.sum(), area.sum(), found.count


def _mean(column: str) -> Callable[[np.ndarray], np.ndarray]:
    index = COLUMNS.index(column)
    return lambda means: means[..., index]


def _ratio(over: str, under: str) -> Callable[[np.ndarray], np.ndarray]:
    """nan where there is nothing below."""
    above, below = _mean(over), _mean(under)
    return lambda means: above(means) / np.where(below(means) > 0, below(means), np.nan)


def _duplication(means: np.ndarray) -> np.ndarray:
    """-inf where nothing was found at all."""
    with np.errstate(divide="ignore"):
        return np.log(_ratio("found", "asked")(means))


FIGURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "recognized": _mean("recognized"),
    "exact": _mean("exact"),
    "duplication": _duplication,
    "cut": _ratio("cut", "objects"),
    "area": _ratio("area", "objects"),
}
SHARES = ("recognized", "exact")  # of images
# Where both methods were asked for the same, equal means of this column are equal figures: what a test can test.
TESTED = {"recognized": "recognized", "exact": "exact", "duplication": "found"}
