"""Pictures made elsewhere, in a folder of their own, and GenEval's layout (Ghosh et al. 2023) in and out.

GenEval: FOLDER/00000/metadata.jsonl holds one object, {"tag": "counting", "include": [{"class": "apple", "count": 3}],
"prompt": "..."}, and FOLDER/00000/samples/00000.png and on are the images of that prompt.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t2i_tools.errors import InputError
from t2i_tools.evaluation.files import copy_file, read_rows, write_text
from t2i_tools.evaluation.items import Item
from t2i_tools.evaluation.store import ROWS
from t2i_tools.promptfile import LABELLED, read_prompts

METADATA = ("metadata.csv", "metadata.jsonl")
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


def read_pictures(folder: str | Path, label: str | None = None, count: int | None = None) -> list[Item]:
    """The items of GenEval's layout, of another evaluation's folder, or of a folder of pictures. Raises InputError.

    Of a folder of pictures, metadata.csv or metadata.jsonl names in each row file_name, class, count and, if it likes,
    prompt, as Hugging Face's ImageFolder has it; label and count stand in for what it does not say, or for all of it.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    if (folder / ROWS).is_file():
        items = [_evaluated(folder, row) for row in read_rows(folder / ROWS) if row["status"] == "ok"]
    else:
        items = [item for metadata in sorted(folder.glob("*/metadata.jsonl")) for item in _geneval(metadata)]
    if items and (label, count) != (None, None):
        raise InputError(f"{folder} says itself what is to be counted: leave label and count out")
    items = items or _flat(folder, label, count)
    if not items:
        raise InputError(
            f"{folder} has no pictures: it takes a folder of them, or GenEval's layout (00000/metadata.jsonl, "
            "00000/samples/*)"
        )
    return items


def write_geneval(rows: Sequence[dict[str, Any]], images: Path, target: Path) -> int:
    """Copy the images of an evaluation's rows into GenEval's layout; returns how many. Raises InputError.

    images: the evaluation's folder, which the rows' files are relative to. Seeds of one prompt become its samples; of
    several methods or sizes each becomes a folder of its own inside `target`.
    """
    rows = [row for row in rows if row["status"] == "ok" and row.get("label") and row.get("count")]
    kinds = {_kind(row) for row in rows}
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((_kind(row) if len(kinds) > 1 else "", row["prompt"]), []).append(row)
    numbers: dict[str, int] = {}
    for (kind, prompt), group in groups.items():
        number = numbers[kind] = numbers.get(kind, -1) + 1
        place = target / kind / f"{number:05}"
        include = [{"class": group[0]["label"], "count": group[0]["count"]}]
        metadata = {"tag": "counting", "include": include, "prompt": prompt}
        write_text(place / "metadata.jsonl", json.dumps(metadata) + "\n")
        for sample, row in enumerate(group):
            copy_file(images / row["file"], place / "samples" / f"{sample:05}.png")
    return len(rows)


def _geneval(metadata: Path) -> list[Item]:
    try:
        about = read_rows(metadata)[0]
        prompt, include = str(about["prompt"]), about.get("include") or []
        only = include[0] if len(include) == 1 else {}
        label, count = only.get("class"), only.get("count")
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f'{metadata} is not GenEval\'s: it needs {{"prompt": ..., "include": [...]}}') from error
    samples = sorted(path for path in (metadata.parent / "samples").glob("*") if path.suffix.lower() in SUFFIXES)
    return [_item(path, prompt, seed, label=label, count=count) for seed, path in enumerate(samples)]


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
    return _item(folder / row["file"], row["prompt"], row["seed"], method=row["method"], **kept)


def _item(path: Path, prompt: str, seed: int, **fields: Any) -> Item:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return Item(prompt, seed, picture=str(path), digest=hashlib.sha256(content).hexdigest(), **fields)


def _kind(row: dict[str, Any]) -> str:
    size = "x".join(map(str, reversed(row["size"]))) if row.get("size") else ""
    return "-".join(part for part in (row["method"], size) if part)
