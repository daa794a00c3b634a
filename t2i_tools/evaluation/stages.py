"""The stages of an evaluation: generate, detect, score. Each turns one batch into one row an item."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

from t2i_tools.errors import InputError
from t2i_tools.evaluation.batches import attempt, describe
from t2i_tools.evaluation.fingerprint import detector_fingerprint, pipeline_fingerprint, weights_fingerprint
from t2i_tools.evaluation.items import Item
from t2i_tools.evaluation.store import Store
from t2i_tools.imagefile import save_image
from t2i_tools.models import align, denoiser

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.detectors import Counter, Detections

Row: TypeAlias = dict[str, Any]
Stage: TypeAlias = Callable[[int], list[Row]]


@dataclass(frozen=True)
class Models:
    """How a worker opens what it needs: each takes a device ("cuda:1"), None for the best, and can be pickled.

    clip: gives (CLIPModel, its tokenizer, {"mean": ..., "std": ...} of the pixels it was trained on). offload: the
    pipeline's weights wait on the CPU for their call.
    """

    judge: Callable[[str | None], Counter]
    pipeline: Callable[[str | None], DiffusionPipeline] | None = None
    clip: Callable[[str | None], tuple[Any, Any, dict[str, Any]]] | None = None
    offload: bool = False


def open_stage(name: str, store: Store, models: Models, device: str | None = None) -> Stage:
    """The function that does a batch, with its model opened. Raises InputError when that is not the manifest's."""
    return {"generate": _generate, "detect": _detect, "score": _score}[name](store, models, device)


def check_pipeline(pipe: DiffusionPipeline, store: Store, offload: bool = False) -> None:
    """Raise InputError unless weights, dtype and, where they are not offloaded, device type are the manifest's."""
    settings, part = store.manifest.settings, denoiser(pipe)
    here = {"device": part.device.type, "dtype": str(part.dtype).removeprefix("torch.")}
    for name, value in here.items():
        if value != getattr(settings, name) and not (offload and name == "device"):
            raise InputError(f"{store.folder} was made with {name} {getattr(settings, name)}, the model has {value}")
    _check_same(store, "model", pipeline_fingerprint(pipe))


def read_picture(path: Path) -> Image.Image:
    """The picture in RGB. Raises InputError when it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read {path.name}: no image, or broken") from error


def _generate(store: Store, models: Models, device: str | None) -> Stage:
    from t2i_tools.evaluation.methods import METHODS, denoiser_passes  # torch takes seconds

    if all(item.picture for item in store.manifest.items):
        return lambda batch: [_picture_row(*one) for one in zip(store.keys(batch), store.items(batch), strict=True)]
    if models.pipeline is None:
        raise InputError(f"{store.folder} needs its model to go on")
    pipe = models.pipeline(device)
    check_pipeline(pipe, store, models.offload)
    align(pipe)
    passes = 0

    def run(items: list[Item]) -> list[Image.Image]:
        nonlocal passes
        with denoiser_passes(pipe) as sizes:
            images = METHODS[items[0].method](pipe, items)
        passes = sum(sizes)
        return images

    def work(batch: int) -> list[Row]:
        """Make and save the images."""
        items = store.items(batch)
        unusable = {i: error for i, item in enumerate(items) if (error := _unusable(item))}
        made = attempt(run, items, [item.filler() for item in items], unusable)
        rows = []
        for key, item, path, image in zip(store.keys(batch), items, store.images(batch), made, strict=True):
            if isinstance(image, Exception):
                rows.append(_error(key, image))
                continue
            save_image(image, path, {**_settings(item, pipe, store), "key": key})
            size = {"width": image.width, "height": image.height}
            file = path.relative_to(store.folder).as_posix()
            rows.append({"key": key, "status": "ok", "file": file, **size, "denoiser": round(passes / len(items))})
        return rows

    return work


def _detect(store: Store, models: Models, device: str | None) -> Stage:
    judge = models.judge(device)
    _check_same(store, "judge", detector_fingerprint(judge))

    def work(batch: int) -> list[Row]:
        """Find the objects in the images."""
        rows = store.rows("generate", batch)
        pictures, failed = _pictures(store, rows)
        found = attempt(lambda images: judge.detect(images), pictures, _blanks(pictures), failed)
        return [
            (_error(row["key"], one) if row["status"] == "ok" else {"key": row["key"], "status": "skipped"})
            if isinstance(one, Exception)
            else {"key": row["key"], "status": "ok", "objects": objects_of(one)}
            for row, one in zip(rows, found, strict=True)
        ]

    return work


def _score(store: Store, models: Models, device: str | None) -> Stage:
    clip = _clip_scorer(store, models, device) if store.manifest.clip else None

    def work(batch: int) -> list[Row]:
        """Compare what was found with what was asked for."""
        found, made = store.rows("detect", batch), store.rows("generate", batch)
        scores = clip(batch, made) if clip else [{}] * len(found)
        return [
            {"key": row["key"], "status": "ok", **_counts(item, row["objects"]), **score}
            if row["status"] == "ok"
            else {"key": row["key"], "status": "skipped"}
            for item, row, score in zip(store.items(batch), found, scores, strict=True)
        ]

    return work


def _clip_scorer(store: Store, models: Models, device: str | None) -> Callable[[int, list[Row]], list[Row]]:
    """CLIP scores of a batch: of each image with its prompt, and with the prompt of a partner in the manifest."""
    from t2i_tools.metrics import derangement, image_embeddings, text_embeddings

    if models.clip is None:
        raise InputError(f"{store.folder} needs its CLIP to go on")
    model, tokenizer, pixels = models.clip(device)
    _check_same(store, "clip", weights_fingerprint(model))
    texts = sorted({item.prompt for item in store.manifest.items if _encodable(item.prompt)})
    partner = dict(zip(texts, (texts[i] for i in derangement(len(texts))), strict=True)) if len(texts) > 1 else {}

    def score(batch: int, rows: list[Row]) -> list[Row]:
        pictures, failed = _pictures(store, rows)
        images = [blank if i in failed else picture for i, (picture, blank) in _with_blanks(pictures)]
        prompts = [item.prompt if _encodable(item.prompt) else "" for item in store.items(batch)]
        seen = image_embeddings(model, images, **pixels)
        scores = {"clip": prompts, "clip_mismatched": [partner.get(prompt, "") for prompt in prompts]}
        values = {name: 100 * (seen * text_embeddings(model, tokenizer, of)[0]).sum(1) for name, of in scores.items()}
        if not partner:
            values.pop("clip_mismatched")
        return [{name: round(float(value[i]), 4) for name, value in values.items()} for i in range(len(rows))]

    return score


def _picture_row(key: str, item: Item) -> Row:
    try:
        content = Path(item.picture).read_bytes()
        if hashlib.sha256(content).hexdigest() != item.digest:
            raise InputError(f"{Path(item.picture).name} has changed since the manifest was written")
        picture = read_picture(Path(item.picture))
    except (OSError, InputError) as error:
        return _error(key, error)
    size = {"width": picture.width, "height": picture.height}
    return {"key": key, "status": "ok", "file": item.picture, **size}


def _pictures(store: Store, rows: list[Row]) -> tuple[list[Image.Image], dict[int, Exception]]:
    """The pictures of a batch's rows, of any kind where one is missing, and the errors by place."""
    pictures, failed = [], {}
    for index, row in enumerate(rows):
        try:
            if row["status"] != "ok":
                raise InputError("there is no picture")
            pictures.append(read_picture(store.folder / row["file"]))
        except InputError as error:
            failed[index] = error
            pictures.append(None)
    size = next((picture.size for picture in pictures if picture), (64, 64))
    return [picture or Image.new("RGB", size) for picture in pictures], failed


def _blanks(pictures: list[Image.Image]) -> list[Image.Image]:
    return [Image.new("RGB", picture.size, "gray") for picture in pictures]


def _with_blanks(pictures: list[Image.Image]) -> enumerate:
    return enumerate(zip(pictures, _blanks(pictures), strict=True))


def objects_of(found: Detections) -> list[Row]:
    """Rounded to what a last bit cannot change; boxes are xyxy in pixels."""
    boxes, scores = np.round(found.boxes.tolist(), 1).tolist(), np.round(found.scores.tolist(), 4).tolist()
    return [
        {"label": label, "score": score, "box": box}
        for label, score, box in zip(found.labels, scores, boxes, strict=True)
    ]


def _counts(item: Item, objects: list[Row]) -> Row:
    """found: objects of the class asked for; others: those of every other class; exact: as many as asked for."""
    from t2i_tools.detectors.detections import spelling

    if item.label is None:
        return {"others": len(objects)}
    found = sum(bool(spelling(one["label"]) & spelling(item.label)) for one in objects)
    row = {"found": found, "others": len(objects) - found}
    return row if item.count is None else {**row, "exact": found == item.count}


def _settings(item: Item, pipe: DiffusionPipeline, store: Store) -> Row:
    settings = {
        "prompt": item.prompt,
        "negative": item.negative,
        "seed": item.seed,
        "steps": item.steps,
        "guidance": item.guidance,
        "scheduler": type(pipe.scheduler).__name__,
        "model": store.manifest.model["name"],
        "method": item.method,
        "dtype": store.manifest.settings.dtype,
        "versions": dict(store.manifest.versions),
    }
    return {name: value for name, value in settings.items() if value is not None}


def _unusable(item: Item) -> InputError | None:
    try:
        item.request()
    except InputError as error:
        return error
    return None


def _encodable(text: str) -> bool:
    return all(not "\ud800" <= letter <= "\udfff" for letter in text)


def _error(key: str, error: Exception) -> Row:
    return {"key": key, "status": "error", "error": describe(error)}


def _check_same(store: Store, part: str, here: str) -> None:
    there = getattr(store.manifest, part).get("fingerprint")
    if there != here:
        raise InputError(
            f"{store.folder} was made with another {part} ({there[:8]}, here {here[:8]}): give another folder"
        )
