"""The figures of `run.py` at one size."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from size_scenes import OBJECTS, draft_judge, judged, references

from t2i_tools.bundled import load_bundled_clip
from t2i_tools.evaluation import Protocol
from t2i_tools.evaluation.reports.summary import pair
from t2i_tools.evaluation.runs.rows import MergedRow
from t2i_tools.evaluation.studies.size_study import Calibration, SizeFigures, figures_of, fitting, summarize_size
from t2i_tools.images.open_image import open_image
from t2i_tools.images.sizes import Size
from t2i_tools.metrics import kid

NATIVE_SIDE = 128


def summary(
    folder: Path,
    split: str,
    size: Size,
    rows: list[MergedRow],
    prompts: list[dict],
    calibrations: dict[str, Calibration],
    rule: Protocol,
) -> tuple[list[SizeFigures], Calibration]:
    """Figures of the methods and of the reference scenes at one size, with KID from either kind of scene.

    The calibration that fits what the pipeline draws by itself is handed on, too. "change" is the mean difference of
    pixels, of 255, from the plain picture: whether a method acts at all.
    """
    rows = [row for row in rows if row["status"] == "ok"]
    calibration = fitting(list(calibrations.values()), [row for row in rows if row["method"] == "plain"])
    summaries, features, judge = [], Features(), draft_judge()
    scenes = {kind: references(prompts, size, split, kind) for kind in OBJECTS}
    real = {kind: features(pictures) for kind, pictures in scenes.items()}
    drawn: dict[str, dict] = {}
    for row in rows:
        drawn.setdefault(row["method"], {})[pair(row)] = open_image(folder / row["file"])
    for one in summarize_size(rows, calibration, rule):
        mine = drawn[one.method]
        change = [pixels(mine[key]) - pixels(drawn["plain"][key]) for key in mine if key in drawn["plain"]]
        fake = features(list(mine.values()))
        images = {"change": f"{np.abs(change).mean():.2f}"}
        images |= {f"KID, {kind}": features.distance(real[kind], fake) for kind in OBJECTS}
        summaries.append(replace(one, extra_columns=images))
    for kind, pictures in scenes.items():
        shown = judged(judge, pictures, prompts, f"scenes, {kind}")
        summaries.append(figures_of(shown, calibrations[kind], rule.level))
    return summaries, calibration


def pixels(picture: Image.Image) -> np.ndarray:
    """(H, W, 3), signed."""
    return np.asarray(picture, dtype=np.int16)


class Features:
    """CLIP's features of one square crop a picture, no larger than the native size: what KID compares."""

    def __init__(self) -> None:
        self.clip = load_bundled_clip()

    def __call__(self, pictures: list[Image.Image]) -> np.ndarray:
        crops = [self.crop(picture, np.random.default_rng(index)) for index, picture in enumerate(pictures)]
        return self.clip.embed_images(crops, normalize=False)

    @staticmethod
    def crop(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Somewhere in the picture."""
        side = min(NATIVE_SIDE, *picture.size)
        left, top = (int(rng.integers(0, extent - side + 1)) for extent in picture.size)
        return picture.crop((left, top, left + side, top + side))

    @staticmethod
    def distance(real: np.ndarray, fake: np.ndarray) -> str:
        """KID and its spread over subsets."""
        found = kid(real, fake, extractor="the bundled scoring CLIP, on native-size crops")
        return f"{found.value:.3f} +- {found.spread:.3f}"
