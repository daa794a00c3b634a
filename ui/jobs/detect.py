"""What a detector sees in images that a user brings."""

import shutil
from collections import Counter as Tally
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from t2i_tools.files import replacing
from t2i_tools.images.open_image import open_image
from t2i_tools.workflows.detectors import COUNTER, open_detector

from ..errors import FieldError
from ..options import AppOptions
from ..registry import Registry, look_up
from ..values import Hash, JobValues, Name, check_at_most
from .generate import start_path

if TYPE_CHECKING:
    from t2i_tools.detectors import Detections

    from ..job_context import JobContext


class DetectValues(JobValues):
    """The objects in images, counted and boxed. images: uploaded files. label: one class, by default all that the
    detector knows.
    """

    images: Annotated[list[Hash], Field(max_length=10_000)] = []
    label: Name | None = None
    detector: Name = COUNTER

    def validated(self, options: AppOptions, registry: Registry) -> "DetectValues":
        """Checked as far as that goes without the detector."""
        if not self.images:
            raise FieldError("images", "there is no image to look at: drop one or more here")
        check_at_most("images", len(self.images), options.limits.items)
        look_up(self.detector, detectors(registry), "detector")
        for image in self.images:
            if not start_path(options.output.expanduser().resolve(), image).exists():
                raise FieldError("images", "an image is no longer here: drop it again")
        return self


def detectors(registry: Registry) -> dict[str, str]:
    """Name -> detector that may look at images: those that steer searches, and the judges."""
    return registry.detectors() | registry.judges()


def run(values: DetectValues, context: "JobContext") -> None:
    """A copy of each image, for uploads go when there are too many, and one record per class in it."""
    context.result = {"files": [], "objects": []}
    context.progress.report(0, 0, "opening the detector")
    detector = open_detector(values.detector, [values.label] if values.label else [], None, None)
    for index, name in enumerate(values.images):
        context.check()
        path = context.folder / f"{index + 1:03}.png"
        with replacing(path) as part:
            shutil.copyfile(start_path(context.output, name), part)
        objects = records(detector.detect([open_image(path)], values.label)[0], values.label)
        context.progress.files.append(path)
        context.result["files"].append(context.name(path))
        context.result["objects"].append(objects)
        context.progress.events.append({"objects": objects})
        context.progress.report(index + 1, len(values.images), f"image {index + 1} of {len(values.images)}")


def records(found: "Detections", label: str | None) -> list[dict[str, Any]]:
    """label, counted and boxes (x0, y0, x1, y1) in pixels of each class, the most frequent first.

    A class that was asked for is there with 0, too.
    """
    counts = Tally(found.labels)
    names = [name for name, _ in counts.most_common()] or ([label] if label else [])
    boxes = [[round(side) for side in box] for box in found.boxes.tolist()]
    return [
        {
            "label": name,
            "counted": counts[name],
            "boxes": [box for box, other in zip(boxes, found.labels, strict=True) if other == name],
        }
        for name in names
    ]
