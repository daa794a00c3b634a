"""Prompts, reference scenes and a calibrated judge for `run.py`, at any size."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from t2i_tools.bundled import WEIGHTS, load_bundled_judge
from t2i_tools.bundled.scenes import COLOURS, DEV_LABELS, LABELS, TEST_LABELS, plural, scene
from t2i_tools.detectors.detections import Detections
from t2i_tools.detectors.heatmap import HeatmapCounter
from t2i_tools.evaluation.count_benchmark import Benchmark
from t2i_tools.evaluation.runs.stages import objects_of
from t2i_tools.evaluation.studies.size_study import DRAFT_THRESHOLD, Calibration, calibrate
from t2i_tools.images.sizes import Size

COUNTS = (1, 2, 3, 4, 5)
LARGEST = 6  # which stands for "6 or more" in the judge's calibration
OBJECTS = ("fixed", "scaled")  # objects of the training's size in pixels, and of its share of the picture
FIRST_SEED = 9_000_000  # beyond the seeds that judge and detector were trained and measured on
CALIBRATION = 10_000  # and beyond the reference scenes
ZOOMS = {(64, 64): 1.5}  # chosen on dev scenes
THRESHOLD = load_bundled_judge().threshold


def benchmark(split: str) -> Benchmark:
    """Classes x counts x backgrounds: 200 prompts in the test split, whose classes and wording dev does not have."""
    opening, joint = ("a photo of", "on") if split == "dev" else ("a picture of", "with")
    classes = {label: plural(label) for label in (DEV_LABELS if split == "dev" else TEST_LABELS)}
    return Benchmark("sizes-bundled", classes, ("", *(f"{joint} a {c} background" for c in COLOURS)), opening)


class SizedJudge(HeatmapCounter):
    """The bundled judge, which sees small pictures enlarged: it was trained on objects of 16 to 40 pixels."""

    def detect(self, images: Sequence[Image.Image], label: str | None = None) -> list[Detections]:
        """See `Counter.detect`."""
        zooms = [ZOOMS.get((image.height, image.width), 1.0) for image in images]
        found = super().detect([_enlarged(*one) for one in zip(images, zooms, strict=True)], label)
        return [Detections(d.labels, d.boxes / zoom, d.scores) for d, zoom in zip(found, zooms, strict=True)]


def draft_judge(device: str | None = None) -> SizedJudge:
    """The judge, at a threshold below any that its calibration may choose; on the CPU, whatever the device."""
    return SizedJudge.load(WEIGHTS / "judge" / "model.safetensors", DRAFT_THRESHOLD)


def references(prompts: list[dict], size: Size, split: str, objects: str) -> list[Image.Image]:
    """A scene of the trained world for each prompt, as the model should draw it at this size."""
    return [
        _scene(index, size, split, objects, row["label"], row["count"], _colour(row["prompt"]))
        for index, row in enumerate(prompts)
    ]


def judged(judge: HeatmapCounter, pictures: list[Image.Image], prompts: list[dict], method: str) -> list[dict]:
    """Rows as an evaluation has them, of pictures that no model made."""
    return [
        {**row, "method": method, "status": "ok", "width": image.width, "height": image.height, "objects": objects}
        for row, image, objects in zip(prompts, pictures, map(objects_of, _detect(judge, pictures)), strict=True)
    ]


def calibrated(judge: HeatmapCounter, size: Size, split: str, objects: str, pictures: int = 210) -> Calibration:
    """The judge on scenes with 0 to LARGEST objects of the class that is asked for."""
    images, labels, counts = [], [], []
    for index in range(pictures):
        label, other = LABELS[index % len(LABELS)], LABELS[(index + 1) % len(LABELS)]
        count = index % (LARGEST + 1)
        drawn = (label, count) if count else (other, 1 + index % LARGEST)
        images.append(_scene(CALIBRATION + index, size, split, objects, *drawn, None))
        labels.append(label)
        counts.append(count)
    order = np.random.default_rng(0).permutation(pictures)  # so that either half holds every count
    found = _detect(judge, [images[i] for i in order])
    return calibrate(found, [labels[i] for i in order], [counts[i] for i in order], usual=THRESHOLD)


def _scene(index, size, split, objects, label, count, colour) -> Image.Image:
    for attempt in range(100):  # a random arrangement may have no room for the last object
        try:
            seed = FIRST_SEED + 100 * index + attempt
            drawn = scene(
                seed, size=size, split=split, kind="counts", label=label, count=count, colour=colour, objects=objects
            )
            return Image.fromarray(drawn.image)
        except ValueError as error:
            problem = error
    raise problem


def _enlarged(image: Image.Image, zoom: float) -> Image.Image:
    size = round(image.width * zoom), round(image.height * zoom)
    return image if zoom == 1 else image.resize(size, Image.Resampling.BICUBIC)


def _colour(prompt: str) -> str | None:
    return next((name for name in COLOURS if f" {name} background" in prompt), None)


def _detect(judge: HeatmapCounter, pictures: list[Image.Image]) -> list:
    return [one for start in range(0, len(pictures), 50) for one in judge.detect(pictures[start : start + 50])]
