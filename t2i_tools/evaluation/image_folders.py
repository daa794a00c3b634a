"""Images made elsewhere, in a folder of their own, and GenEval's layout (Ghosh et al. 2023) in and out.

GenEval: FOLDER/00000/metadata.jsonl holds one object, {"tag": "counting", "include": [{"class": "apple", "count": 3}],
"exclude": [{"class": "apple", "count": 4}], "prompt": "..."}, and FOLDER/00000/samples/00000.png and on are the images
of that prompt. Without "exclude", as its single objects have it, more than the count are as right.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from t2i_tools.errors import InputError, shortened
from t2i_tools.evaluation.rows_io import copy_file, read_rows, write_text
from t2i_tools.evaluation.runs.items import Item
from t2i_tools.evaluation.runs.rows import MergedRow, asked_size
from t2i_tools.evaluation.runs.store import ROWS
from t2i_tools.images.promptfile import LABELLED, read_prompts
from t2i_tools.images.sizes import format_size

logger = logging.getLogger("t2i_tools.evaluation")
GENEVAL_FORMAT = 'it needs {"prompt": ..., "include": [{"class": ..., "count": ...}]}'
METADATA = ("metadata.csv", "metadata.jsonl")
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


def read_images(folder: str | Path, label: str | None = None, count: int | None = None) -> list[Item]:
    """The items of GenEval's layout, of another evaluation's folder, or of a folder of images. Raises InputError.

    Of a folder of images, metadata.csv or metadata.jsonl names in each row file_name, class, count and, if it likes,
    prompt, as Hugging Face's ImageFolder has it; label and count stand in for what it does not say, or for all of it.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    if (folder / ROWS).is_file():
        items = [_evaluated(folder, row) for row in read_rows(folder / ROWS) if row.get("status") == "ok"]
    else:
        items = [item for metadata in sorted(folder.glob("*/metadata.jsonl")) for item in _geneval(metadata)]
        _warn_of_unjudged(folder, items)
    if items and (label, count) != (None, None):
        raise InputError(f"{folder} already says what to count in each image: leave out label and count")
    items = items or _flat(folder, label, count)
    if not items:
        raise InputError(
            f"{folder} has no images: give a folder of them, or GenEval's layout (00000/metadata.jsonl, "
            "00000/samples/*)"
        )
    return items


def read_geneval_prompts(file: Path) -> list[dict[str, Any]] | None:
    """The rows of GenEval's own list of prompts, evaluation_metadata.jsonl, as `make_items` takes them.

    None for any other file, broken ones too. Raises InputError for clauses that are none of GenEval's.
    """
    if file.suffix.lower() != ".jsonl":
        return None
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError, RecursionError):
        return None
    if not lines or not all(isinstance(line, dict) and "include" in line for line in lines):
        return None
    rows = []
    for number, about in enumerate(lines, 1):
        try:
            rows.append({"prompt": str(about["prompt"]), **_asked(about)})
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{file} row {number} is not in GenEval's format: {GENEVAL_FORMAT}") from error
    _warn_of_unjudged(file, rows)
    return rows


def write_geneval(rows: Sequence[MergedRow], images: Path, target: Path) -> int:
    """Copy the images of an evaluation's rows into GenEval's layout; returns how many. Raises InputError.

    images: the evaluation's folder, which the rows' files are relative to. Seeds of one prompt become its samples; of
    several methods or sizes each becomes a folder of its own inside `target`.
    """
    rows = [row for row in rows if row["status"] == "ok" and row.get("label") and row.get("count")]
    kinds = {_kind(row) for row in rows}
    groups: dict[tuple[str, str, bool], list[MergedRow]] = {}
    for row in rows:
        kind = _kind(row) if len(kinds) > 1 else ""
        groups.setdefault((kind, row["prompt"], row.get("at_least", False)), []).append(row)
    numbers: dict[str, int] = {}
    for (kind, prompt, _), group in groups.items():
        number = numbers[kind] = numbers.get(kind, -1) + 1
        place = target / kind / f"{number:05}"
        write_text(place / "metadata.jsonl", json.dumps(_metadata(prompt, group[0])) + "\n")
        for sample, row in enumerate(group):
            copy_file(images / row["file"], place / "samples" / f"{sample:05}.png")
    return len(rows)


def _metadata(prompt: str, row: MergedRow) -> dict[str, Any]:
    """GenEval's "include" means at least so many; "exclude" says from which number on it is wrong."""
    label, count = row["label"], row["count"]
    about: dict[str, Any] = {"tag": "single_object" if row.get("at_least") and count == 1 else "counting"}
    about["include"] = [{"class": label, "count": count}]
    if not row.get("at_least"):
        about["exclude"] = [{"class": label, "count": count + 1}]
    return {**about, "prompt": prompt}


def _geneval(metadata: Path) -> list[Item]:
    try:
        about = read_rows(metadata)[0]
        asked = _asked(about)
        prompt = str(about["prompt"])
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{metadata} is not in GenEval's format: {GENEVAL_FORMAT}") from error
    samples = sorted(path for path in (metadata.parent / "samples").glob("*") if path.suffix.lower() in SUFFIXES)
    return [_item(path, prompt, seed, **asked) for seed, path in enumerate(samples)]


def _warn_of_unjudged(source: Path, items: Sequence[Item | dict[str, Any]]) -> None:
    """Say how many items have no class to count, in one line."""
    others = sum("label" not in one if isinstance(one, dict) else one.label is None for one in items)
    if others:
        logger.warning(
            "%s: %d of %d prompts ask for several classes, a color or a position; their images are not judged",
            shortened(source),
            others,
            len(items),
        )


def _asked(about: Mapping[str, Any]) -> dict[str, Any]:
    """Class and count of GenEval's clauses; {} where they ask for several classes, a color or a position."""
    include, exclude = about.get("include") or [], about.get("exclude") or []
    if len(include) != 1 or not include[0].keys() <= {"class", "count"}:
        return {}
    label, count = include[0]["class"], include[0]["count"]
    if not (isinstance(label, str) and isinstance(count, int)):
        raise TypeError
    if exclude and [(one["class"], one["count"]) for one in exclude] != [(label, count + 1)]:
        return {}
    return {"label": label, "count": count, "at_least": not exclude}


def _flat(folder: Path, label: str | None, count: int | None) -> list[Item]:
    table = next((folder / name for name in METADATA if (folder / name).is_file()), None)
    if table:
        rows = [row for _, row in read_prompts(table, {**LABELLED, "file_name": str}, key="file_name")]
    else:
        rows = [{"file_name": path.name} for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]
        if rows and label is None:
            raise InputError(
                f"{folder} does not say what is to be counted: write {METADATA[0]} (file_name, class, count) into it, "
                "or give --label and --count"
            )
    usual = {"label": label, "count": count}
    return [_shown(folder, place, {**usual, **row}) for place, row in enumerate(rows)]


def _shown(folder: Path, place: int, row: dict[str, Any]) -> Item:
    asked = " ".join(str(row[name]) for name in ("count", "label") if row[name] is not None)
    prompt = row.get("prompt") or asked or row["file_name"]
    return _item(folder / row["file_name"], prompt, row.get("seed", place), label=row["label"], count=row["count"])


def _evaluated(folder: Path, row: dict[str, Any]) -> Item:
    kept = {name: row.get(name) for name in ("label", "count", "negative", "steps", "guidance")}
    for name, kind in {"file": str, "prompt": str, "seed": int, "method": str}.items():
        if not isinstance(row.get(name), kind):
            raise InputError(
                f"{folder / ROWS} was not written by an evaluation: one of its rows has no valid {name}; give "
                "another folder"
            )
    return _item(folder / row["file"], row["prompt"], row["seed"], method=row["method"], **kept)


def _item(path: Path, prompt: str, seed: int, **fields: Any) -> Item:
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {shortened(path)}: {getattr(error, 'strerror', error)}") from error
    return Item(prompt, seed, image=str(path), digest=hashlib.sha256(content).hexdigest(), **fields)


def _kind(row: MergedRow) -> str:
    size = asked_size(row)
    return f"{row['method']}-{format_size(size)}" if size else row["method"]
