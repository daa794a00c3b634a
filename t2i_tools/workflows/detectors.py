"""Detectors, judges and scorers by name, as functions that another process can import and call."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from t2i_tools.counting.methods import DEFAULT_BUDGET
from t2i_tools.errors import InputError
from t2i_tools.workflows.choices import alike
from t2i_tools.workflows.open_model import BUNDLED, BUNDLED_FORMS, ModelOptions, open_model, silence_libraries

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL import Image

    from t2i_tools.detectors import Counter, Detections
    from t2i_tools.evaluation.runs.stages import Openers
    from t2i_tools.metrics import ClipScorer

COUNTER = "bundled_counter"
JUDGES = ("bundled_judge", "bundled_second_judge")
SAME_DETECTOR = "the judge must not be the detector that steers the search: choose another detector for one of them"
logger = logging.getLogger("t2i_tools.evaluation")


@dataclass(frozen=True)
class SearchSettings:
    """The counter and budget of an evaluation's searches. budget: per image, in plain images' worth."""

    counter: str | None = None
    budget: float = DEFAULT_BUDGET


def pipeline_on(chosen: ModelOptions, device: str | None) -> DiffusionPipeline:
    """The pipeline of the options; a device that they name goes before `device`."""
    return open_model(replace(chosen, device=chosen.device or device))


def judge_on(name: str, threshold: float | None, labels: Sequence[str], device: str | None) -> Counter:
    """The detector of --judge; ours runs on the CPU. Raises T2IError."""
    if alike(name) == COUNTER:
        raise InputError(f"--judge {name}: it steers searches, so it cannot judge what it steered: take {JUDGES[0]}")
    return open_detector(name, labels, threshold, None if alike(name) in JUDGES else device)


def counter_on(name: str | None, chosen: ModelOptions, labels: Sequence[str], device: str | None) -> Counter:
    """Open the detector of --counter; the bundled one on the CPU, so that all workers count alike. Raises T2IError."""
    ours = alike(name or COUNTER) == COUNTER
    return open_counter(name, replace(chosen, device="cpu" if ours else chosen.device or device), labels)


def clip_on(name: str, device: str | None) -> ClipScorer:
    """The CLIP of --clip. Raises T2IError."""
    from t2i_tools.metrics import ClipScorer
    from t2i_tools.models.loading import opening

    silence_libraries()
    if name != BUNDLED:
        return ClipScorer.load(name, device=device)
    from t2i_tools.bundled import load_bundled_clip

    with opening("the bundled CLIP"):
        return load_bundled_clip()


def openers_of(
    chosen: ModelOptions,
    judge: str,
    threshold: float | None,
    labels: Sequence[str],
    clip: str | None,
    search: SearchSettings | None = None,
) -> Openers:
    """How workers open the models that the options name."""
    from t2i_tools.evaluation.runs.stages import Openers

    return Openers(
        pipeline=partial(pipeline_on, chosen),
        judge=partial(judge_on, judge, threshold, tuple(labels)),
        clip=partial(clip_on, clip) if clip else None,
        offload=chosen.offload,
        counter=partial(counter_on, search.counter, chosen, tuple(labels)) if search else None,
    )


def check_labels(
    judge: Counter, labels: Sequence[str], name: str, *, some: bool = False, option: str = "--judge"
) -> None:
    """Raise InputError if the detector does not know one of the classes; `some`: only warn if it knows any of them."""
    from t2i_tools.detectors.names import listed
    from t2i_tools.evaluation.runs.stages import unknown_classes

    unknown = unknown_classes(judge, labels)
    if not unknown:
        return
    names = ", ".join(map(repr, unknown))
    if some and len(unknown) < len(labels):
        action = "judged" if option == "--judge" else "searched for"
        logger.warning("%s %s does not know %s: these images are not %s", option, name, names, action)
        return
    raise InputError(
        f"{option} {name}: this detector does not know {names}, only {listed(getattr(judge, 'labels', ()))}"
    )


def check_apart(counter: Counter, judge: Counter) -> None:
    """Raise InputError when the judge is the network that counts while a search runs: it would praise its choice."""
    if (networks := _networks(counter)) and networks == _networks(judge):
        raise InputError(SAME_DETECTOR)


def _networks(detector: Counter) -> list[str]:
    from t2i_tools.evaluation.runs.fingerprint import weights_fingerprint

    parts = [part for _, part in sorted(vars(detector).items()) if hasattr(part, "state_dict")]
    return [weights_fingerprint(part) for part in parts]


def open_detector(name: str, labels: Sequence[str], threshold: float | None, device: str | None) -> Counter:
    """Open a detector by its name; the bundled ones run on the CPU unless a device is given. Raises T2IError.

    name: `COUNTER`, one of `JUDGES`, or a file, a folder or a Hub id. labels: the classes to look for.
    """
    ours = alike(name)
    if ours not in (COUNTER, *JUDGES):
        return open_other(name, labels, threshold, device)
    from t2i_tools.bundled import load_bundled_counter, load_bundled_judge
    from t2i_tools.models.loading import opening, pick_device

    with opening(ours.replace("_", " ")):
        counter = load_bundled_counter() if ours == COUNTER else load_bundled_judge(second=ours == JUDGES[1])
    if threshold is not None:
        counter.threshold = threshold
    return counter.to(pick_device(device)) if device else counter


def open_other(name: str, labels: Sequence[str], threshold: float | None, device: str | None) -> Counter:
    """A detector that is not ours, from a file, folder or the Hub. Raises T2IError.

    labels: what one of any word looks for; a single one also names the class of a YOLO whose files do not. Which of
    several was its first class, nobody has said.
    """
    from t2i_tools.detectors import finds_any_word, open_counter
    from t2i_tools.models.loading import pick_device

    silence_libraries()
    counter: Any = open_counter(name, threshold=threshold, labels=labels if len(labels) == 1 else ())
    if finds_any_word(counter):
        counter.labels = tuple(labels)
    return counter.to(pick_device(device))


def draw_boxes(image: Image.Image, found: Detections, names: bool = True) -> Image.Image:
    """A copy with each object's box in the color of its class; with `names`, also the class where there is room."""
    from zlib import crc32

    from PIL import ImageColor, ImageDraw, ImageFont

    copy = image.copy()
    pen, line, letters = ImageDraw.Draw(copy), max(1, round(min(image.size) / 200)), max(8, min(image.size) // 32)
    font = ImageFont.load_default(size=letters)
    for label, box in zip(found.labels, found.boxes.tolist(), strict=True):
        colour = ImageColor.getrgb(f"hsl({crc32(label.encode()) % 360}, 90%, 40%)")
        pen.rectangle(box, outline=colour, width=line)
        if not names:
            continue
        above = box[1] > letters + line
        place, anchor = ((box[0], box[1]), "lb") if above else ((box[0] + line, box[1] + line), "lt")
        pen.rectangle(pen.textbbox(place, label, font=font, anchor=anchor), fill=colour)
        pen.text(place, label, fill="white", font=font, anchor=anchor)
    return copy


def open_counter(name: str | None, chosen: ModelOptions, labels: Sequence[str]) -> Counter:
    """The detector that is followed. Raises InputError for a judge, and where none is named for another model.

    labels: the classes to look for.
    """
    if alike(name or "") in JUDGES:
        raise InputError(f"--counter {name}: a judge only evaluates; it could not judge what it steered")
    if name is None and chosen.model not in BUNDLED_FORMS:
        raise InputError(f"--counter is needed: which detector is to count, a folder, a file, a Hub id or {COUNTER}")
    return open_detector(name or COUNTER, labels, None, chosen.device)
