"""The stages of an evaluation: generate, detect, score. Each turns one batch into a row per item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from PIL import Image

from t2i_tools.errors import InputError, T2IError
from t2i_tools.evaluation.runs.batches import attempt, describe
from t2i_tools.evaluation.runs.fingerprint import detector_fingerprint, pipeline_fingerprint, weights_fingerprint
from t2i_tools.evaluation.runs.items import Item
from t2i_tools.evaluation.runs.rows import (
    ClipRow,
    Counts,
    DetectRow,
    FoundObject,
    GenerateRow,
    Row,
    ScoreRow,
    SearchFields,
)
from t2i_tools.evaluation.runs.store import Store, file_digest
from t2i_tools.images.metadata import save_image
from t2i_tools.images.open_image import open_image
from t2i_tools.models.anatomy import align, denoiser
from t2i_tools.models.parts import sampler_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.counting import Result
    from t2i_tools.detectors import Counter, Detections
    from t2i_tools.metrics import ClipScorer

Stage: TypeAlias = Callable[[int], Sequence[Row]]
Scores: TypeAlias = Callable[[Sequence[Item], Sequence[Image.Image]], list[ClipRow]]
BLANK = (64, 64)  # pixels of what stands in for images where a whole batch has none


@dataclass(frozen=True)
class Openers:
    """How a worker opens what it needs: each takes a device ("cuda:1"), None for the best, and can be pickled.

    offload: keep the pipeline's weights on the CPU until a call needs them. counter: steers searches; must not be the
    judge.
    """

    judge: Callable[[str | None], Counter]
    pipeline: Callable[[str | None], DiffusionPipeline] | None = None
    clip: Callable[[str | None], ClipScorer] | None = None
    offload: bool = False
    counter: Callable[[str | None], Counter] | None = None


def open_stage(name: str, store: Store, openers: Openers, device: str | None = None) -> Stage:
    """The function that does a batch, with its model opened. Raises InputError when that is not the manifest's."""
    stages: dict[str, Callable[[Store, Openers, str | None], Stage]] = {
        "generate": _generate,
        "detect": _detect,
        "score": _score,
    }
    return stages[name](store, openers, device)


def check_pipeline(pipe: DiffusionPipeline, store: Store, offload: bool = False) -> None:
    """Raise InputError unless weights, dtype and, where they are not offloaded, device type are the manifest's."""
    settings, part = store.manifest.settings, denoiser(pipe)
    here = {"device": part.device.type, "dtype": str(part.dtype).removeprefix("torch.")}
    for name, value in here.items():
        if value != getattr(settings, name) and not (offload and name == "device"):
            raise InputError(f"{store.folder} was made with {name} {getattr(settings, name)}, the model has {value}")
    _check_same(store, "model", pipeline_fingerprint(pipe))


def unknown_classes(judge: Counter, labels: Sequence[str]) -> list[str]:
    """The classes that a judge does not know; none for one that looks for any word."""
    from t2i_tools.detectors import finds_any_word, unknown_labels

    known = getattr(judge, "labels", None)
    return [] if known is None or finds_any_word(judge) else unknown_labels(labels, known)


def _generate(store: Store, openers: Openers, device: str | None) -> Stage:
    from t2i_tools.evaluation.runs.generators import GENERATORS, denoiser_passes  # torch takes seconds
    from t2i_tools.evaluation.runs.searching import search_fields

    if all(item.image for item in store.manifest.items):
        return lambda batch: [_image_row(*one) for one in zip(store.keys(batch), store.items(batch), strict=True)]
    if openers.pipeline is None:
        raise InputError(f"{store.folder} needs a model to go on: pass one to make the images")
    methods = {item.method for item in store.manifest.items if not (item.image or item.is_search)}
    if unknown := sorted(methods - GENERATORS.keys()):
        raise InputError(
            f"{store.folder} was begun with a method that this version does not have: {', '.join(unknown)}. "
            "Go on with the version that began it, or choose another folder"
        )
    pipe = openers.pipeline(device)
    check_pipeline(pipe, store, openers.offload)
    search = _open_search(pipe, store, openers, device)
    align(pipe)
    passes = 0
    result: Result | None = None

    def run(items: list[Item]) -> list[Image.Image]:
        nonlocal passes, result
        with denoiser_passes(pipe) as sizes:
            result = search(items[0]) if search and items[0].is_search else None
            images = result.images if result else GENERATORS[items[0].method](pipe, items)
        passes = sum(sizes)
        return images

    def work(batch: int) -> list[GenerateRow]:
        """Make and save the images."""
        items = store.items(batch)
        unusable = {i: error for i, item in enumerate(items) if (error := _unusable(item))}
        made = attempt(run, items, [item.filler() for item in items], unusable)
        rows: list[GenerateRow] = []
        for key, item, path, image in zip(store.keys(batch), items, store.images(batch), made, strict=True):
            if isinstance(image, Exception):
                rows.append(_failed(key, image))
                continue
            about: SearchFields = search_fields(result) if result else {}
            settings = _settings(item, pipe, store) | (_search_settings(result, about, store) if result else {})
            save_image(image, path, {**settings, "key": key})
            row = _saved(key, path.relative_to(store.folder).as_posix(), file_digest(path), image)
            rows.append({**row, "denoiser": round(passes / len(items)), **about})
        return rows

    return work


def _open_search(
    pipe: DiffusionPipeline, store: Store, openers: Openers, device: str | None
) -> Callable[[Item], Result] | None:
    """Open the counter and return the function that runs one item's search; None if no item needs a search."""
    from t2i_tools.evaluation.runs.searching import search_item

    if not any(item.is_search for item in store.manifest.items):
        return None
    if openers.counter is None:
        raise InputError(f"{store.folder} needs a counter to go on: pass the one that steered its searches")
    counter = openers.counter(device)
    _check_same(store, "search", detector_fingerprint(counter), "counter")
    return partial(search_item, pipe, counter=counter, budget=store.manifest.search["budget"])


def _detect(store: Store, openers: Openers, device: str | None) -> Stage:
    judge = openers.judge(device)
    _check_same(store, "judge", detector_fingerprint(judge))
    unknown = set(unknown_classes(judge, sorted({item.label for item in store.manifest.items if item.label})))

    def work(batch: int) -> list[DetectRow]:
        """Find the objects in the images."""
        rows = store.generated(batch)
        images, failed = _open_images(store, rows)
        for index, item in enumerate(store.items(batch)):
            if item.label in unknown:
                failed.setdefault(index, InputError(f"the judge does not know {item.label!r}"))
        found = attempt(lambda batch: judge.detect(batch), images, _blanks(images), failed)
        return [_seen(row, one) for row, one in zip(rows, found, strict=True)]

    return work


def _score(store: Store, openers: Openers, device: str | None) -> Stage:
    clip = _clip_scores(store, openers, device) if store.manifest.clip else None

    def work(batch: int) -> list[ScoreRow]:
        """Compare what was found with what was asked for."""
        found, items = store.detected(batch), store.items(batch)
        scores: list[ClipRow] = [{} for _ in found]
        failed: dict[int, Exception] = {}
        if clip:
            images, failed = _open_images(store, store.generated(batch))
            blanks = _blanks(images)
            scores = clip(items, [blanks[i] if i in failed else image for i, image in enumerate(images)])
        rows: list[ScoreRow] = []
        for index, (item, row) in enumerate(zip(items, found, strict=True)):
            if row["status"] != "ok":
                rows.append({"key": row["key"], "status": "skipped"})
            elif index in failed:
                rows.append(_failed(row["key"], failed[index]))
            else:
                rows.append({"key": row["key"], "status": "ok", **_counts(item, row["objects"]), **scores[index]})
        return rows

    return work


def _clip_scores(store: Store, openers: Openers, device: str | None) -> Scores:
    """CLIP scores of each image with its prompt, and with the prompt of a partner in the manifest."""
    from t2i_tools.metrics import derangement

    if openers.clip is None:
        raise InputError(f"{store.folder} needs a CLIP to go on: pass the one it was made with")
    scorer = openers.clip(device)
    _check_same(store, "clip", weights_fingerprint(scorer.model))
    texts = sorted({item.prompt for item in store.manifest.items if _is_text(item.prompt)})
    partner = dict(zip(texts, (texts[i] for i in derangement(len(texts))), strict=True)) if len(texts) > 1 else {}

    def scores(items: Sequence[Item], images: Sequence[Image.Image]) -> list[ClipRow]:
        prompts = [item.prompt if _is_text(item.prompt) else "" for item in items]
        compared = {"clip": prompts, "clip_mismatched": [partner.get(prompt, "") for prompt in prompts]}
        if not partner:
            compared.pop("clip_mismatched")
        seen = scorer.embed_images(images)
        values = {name: 100 * (seen * scorer.embed_texts(of)[0]).sum(1) for name, of in compared.items()}
        rounded = ({name: round(float(value[i]), 4) for name, value in values.items()} for i in range(len(items)))
        return [cast("ClipRow", row) for row in rounded]

    return scores


def _image_row(key: str, item: Item) -> GenerateRow:
    """The row of an image made elsewhere."""
    path = Path(item.image or "")
    try:
        if (digest := file_digest(path)) != item.digest:
            raise InputError(
                f"{path.name} has changed since the evaluation began: start again with another output folder"
            )
        image = open_image(path)
    except (OSError, InputError) as error:
        return _failed(key, error)
    return _saved(key, str(path), digest, image)


def _saved(key: str, file: str, sha256: str, image: Image.Image) -> GenerateRow:
    return {
        "key": key,
        "status": "ok",
        "file": file,
        "sha256": sha256,
        "width": image.width,
        "height": image.height,
    }


def _seen(row: GenerateRow, found: Detections | Exception) -> DetectRow:
    if not isinstance(found, Exception):
        return {"key": row["key"], "status": "ok", "objects": objects_of(found)}
    return _failed(row["key"], found) if row["status"] == "ok" else {"key": row["key"], "status": "skipped"}


def _open_images(store: Store, rows: Sequence[GenerateRow]) -> tuple[list[Image.Image], dict[int, Exception]]:
    """The images of a batch's rows, a blank where one is missing or is not the one that was made, and the errors."""
    opened: list[Image.Image | None] = []
    failed: dict[int, Exception] = {}
    for index, row in enumerate(rows):
        try:
            if row["status"] != "ok":
                raise InputError("there is no image")
            store.check_image(row)
            opened.append(open_image(store.folder / row["file"]))
        except T2IError as error:
            failed[index] = error
            opened.append(None)
    size = next((image.size for image in opened if image), BLANK)
    return [image or Image.new("RGB", size) for image in opened], failed


def _blanks(images: Sequence[Image.Image]) -> list[Image.Image]:
    return [Image.new("RGB", image.size, "gray") for image in images]


def objects_of(found: Detections) -> list[FoundObject]:
    """Rounded to what a last bit cannot change; boxes are xyxy in pixels."""
    boxes, scores = np.round(found.boxes.tolist(), 1).tolist(), np.round(found.scores.tolist(), 4).tolist()
    return [
        {"label": label, "score": score, "box": box}
        for label, score, box in zip(found.labels, scores, boxes, strict=True)
    ]


def _counts(item: Item, objects: Sequence[FoundObject]) -> Counts:
    """found: objects of the class asked for, the asked number at most where more are right; others: those of every
    other class; exact: as many as asked for."""
    from t2i_tools.detectors.names import spelling

    if item.label is None:
        return {"others": len(objects)}
    found = sum(bool(spelling(one["label"]) & spelling(item.label)) for one in objects)
    others = len(objects) - found
    if item.count is None:
        return {"found": found, "others": others}
    found = min(found, item.count) if item.at_least else found
    return {"found": found, "others": others, "exact": found == item.count}


def _settings(item: Item, pipe: DiffusionPipeline, store: Store) -> dict[str, Any]:
    settings = {
        "prompt": item.prompt,
        "negative": item.negative,
        "seed": item.seed,
        "steps": item.steps,
        "guidance": item.guidance,
        "scheduler": str(sampler_of(pipe.scheduler)),
        "model": store.manifest.model["name"],
        "method": item.method,
        "dtype": store.manifest.settings.dtype,
        "versions": dict(store.manifest.versions),
    }
    return {name: value for name, value in settings.items() if value is not None}


def _search_settings(result: Result, about: SearchFields, store: Store) -> dict[str, Any]:
    """Settings saved in a searched image: its final seed and, apart, its prompt, as the learned token is not saved."""
    by = {"counter": store.manifest.search["name"], "budget": store.manifest.search["budget"]}
    return {"seed": result.seeds[0], "search": {"prompt": result.prompt, **by, **about}}


def _unusable(item: Item) -> Exception | None:
    try:
        item.request()
    except InputError as error:
        return error
    return None


def _is_text(prompt: str) -> bool:
    return all(not "\ud800" <= letter <= "\udfff" for letter in prompt)


def _failed(key: str, error: Exception) -> Any:
    """The row of any stage."""
    return {"key": key, "status": "error", "error": describe(error)}


def _check_same(store: Store, part: str, here: str, what: str = "") -> None:
    there = getattr(store.manifest, part).get("fingerprint", "")
    if there != here:
        raise InputError(
            f"{store.folder} was made with another {what or part} ({there[:8]}, here {here[:8]}): give another folder"
        )
