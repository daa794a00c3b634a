"""Prompts from a file: .txt (one per line), .csv (the first line names the columns) or .jsonl (one object per line).

A column that names a setting acts, under our name or the field's usual one, or the file is refused; other columns are
reported and left alone. The whole file is checked before anything is done with it.
"""

import csv
import difflib
import io
import json
import logging
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from t2i_tools.errors import InputError, shortened
from t2i_tools.images.sizes import FITS, format_size, parse_size
from t2i_tools.models.dtypes import dtype_name
from t2i_tools.models.samplers import find_sampler

Fields = Mapping[str, Callable[[Any], Any]]
logger = logging.getLogger("t2i_tools.images")
SUFFIXES = (".txt", ".csv", ".jsonl")
SHOWN = 5  # faults that one message names
NAMED = 12  # unknown columns that one note names
SWITCH = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}


def whole(value: Any, least: int | None = None) -> int:
    """An int from a JSON number or text; "3.0" is one too, as pandas writes it. Raises ValueError or InputError."""
    text = str(value).strip()
    if re.fullmatch(r"[+-]?[0-9]{1,30}\.0*", text):
        text = text.partition(".")[0]
    number = int(text)
    if least is not None and number < least:
        raise InputError(f"{number} is out of range: use {least} or more")
    return number


def positive(value: Any) -> int:
    """A whole number from 1 on. Raises ValueError or InputError."""
    return whole(value, 1)


def natural(value: Any) -> int:
    """A whole number from 0 on. Raises ValueError or InputError."""
    return whole(value, 0)


def number(value: Any) -> float:
    """A finite number. Raises ValueError or InputError."""
    read = float(str(value))
    if isinstance(value, bool) or not math.isfinite(read):
        raise InputError(f"{value} is not a finite number")
    return read


def strength(value: Any) -> float | str:
    """A finite number, or "auto". Raises ValueError or InputError."""
    return "auto" if value == "auto" else number(value)


def name(value: Any) -> str:
    """A text. Raises InputError for anything else that JSON holds."""
    if not isinstance(value, str):
        raise InputError(f"{shortened(json.dumps(value))} is not a text")
    return value.strip()


def switch(value: Any) -> bool:
    """On or off. Raises InputError."""
    read = SWITCH.get(str(value).strip().lower())
    if read is None:
        raise InputError(f"{shortened(repr(value))} is neither on nor off")
    return read


def plugin(value: Any) -> Any:
    """On, off, or the object in which an image's file says what a plugin did. Raises InputError."""
    return value if isinstance(value, dict) else switch(value)


def method(value: Any) -> Any:
    """The name of a way to read long prompts, or the object in which an image's file says it. Raises InputError."""
    return value if isinstance(value, dict) else name(value)


def several(value: Any) -> list[Any]:
    """A list, or texts with semicolons between."""
    if isinstance(value, str):
        return [text.strip() for text in value.split(";") if text.strip()]
    return value if isinstance(value, list) else [value]


def check_fit(value: Any) -> str:
    """One of FITS. Raises InputError."""
    if value not in FITS:
        raise InputError(f"unknown fit {shortened(repr(value))}: choose {' or '.join(FITS)}")
    return value


def compared(value: Any) -> bool:
    """On or off, or what an image says that shows both."""
    return value == "off | on" or switch(value)


FIELDS: Fields = {
    "prompt": str,
    "negative": str,
    "size": lambda value: parse_size(str(value)),
    "width": positive,
    "height": positive,
    "seed": whole,
    "steps": positive,
    "guidance": number,
    "number": positive,
}
# What an evaluation reads besides: which class is to be seen, and how often.
LABELLED: Fields = {**FIELDS, "label": name, "count": natural}
# All that `generate` takes from a row: what a file of settings says, and the options of the same names.
SETTINGS: Fields = {
    **FIELDS,
    "fit": check_fit,
    "scheduler": name,
    "schedule_type": name,
    "model": name,
    "config": name,
    "vae": name,
    "lora": several,
    "embedding": several,
    "dtype": dtype_name,
    "compare": compared,
    "entropy_scaling": plugin,
    "entropy_rule": name,
    "entropy_strength": strength,
    "entropy_layers": name,
    "native": lambda value: format_size(parse_size(str(value))),
    "two_pass": plugin,
    "two_pass_strength": number,
    "deep_shrink": plugin,
    "deep_shrink_share": number,
    "deep_shrink_level": positive,
    "long_prompts": method,
    "long_clip": name,
    "count_token": several,
    "template": lambda value: value,  # with its wildcards, where the prompt has their words
}
ALIASES = {
    "class": "label",
    "negative_prompt": "negative",
    "neg_prompt": "negative",
    "num_inference_steps": "steps",
    "sampling_steps": "steps",
    "guidance_scale": "guidance",
    "cfg": "guidance",
    "cfg_scale": "guidance",
    "cfgscale": "guidance",
    "sampler": "scheduler",
    "sampler_name": "scheduler",
    "num_images": "number",
    "num_images_per_prompt": "number",
    "n_samples": "number",
    "image_size": "size",
    "resolution": "size",
    "w": "width",
    "h": "height",
    "checkpoint": "model",
    "ckpt": "model",
    "ckpt_name": "model",
    "model_name": "model",
    "sd_model_name": "model",
    "loras": "lora",
    "lora_name": "lora",
    "vae_name": "vae",
    "sd_vae": "vae",
    "embeddings": "embedding",
    "textual_inversion": "embedding",
}
# Settings of other tools for which there is nothing here: an image without them would be another one.
MISSING = {
    "clip_skip",
    "controlnet",
    "denoising_strength",
    "eta",
    "guidance_rescale",
    "hires_upscale",
    "image",
    "init_image",
    "mask",
    "mask_image",
    "negative_prompt_2",
    "negative_prompt_3",
    "prompt_2",
    "prompt_3",
    "refiner",
    "strength",
    "true_cfg_scale",
}
INFORMATION = {"file", "versions"}  # in our own output; nothing that could act


def read_prompts(
    path: str | Path,
    fields: Fields = FIELDS,
    key: str = "prompt",
    *,
    counted: bool = False,
    note: Callable[[str], object] = logger.warning,
) -> list[tuple[int, dict[str, Any]]]:
    """Read the rows of a prompts file, each fault of which is named with its line.

    Args:
        path: A file in UTF-8 that ends in .txt, .csv or .jsonl.
        fields: The columns that act, and what converts each: FIELDS, LABELLED or SETTINGS.
        key: The column that no row may lack.
        counted: Whether a class needs a count, and a count a class.
        note: Called with one line that names the columns which are no settings.

    Returns:
        (line number, values) per row. A value not given is absent; width and height have become `size`, (height,
        width).

    Raises:
        InputError: In one line, the first SHOWN faults with file and line.
    """
    path = Path(path)
    read = {".txt": _read_txt, ".csv": _read_csv, ".jsonl": _read_jsonl}.get(path.suffix.lower())
    if read is None:
        raise InputError(f"prompts file {path} must end in .txt, .csv or .jsonl")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"prompts file {path} is not UTF-8 text") from error
    except OSError as error:
        raise InputError(f"cannot read prompts file {path}: {error.strerror}") from error
    rows, faults = [], []
    unknown: set[str] = set()
    for line, raw in read(text, path, key):
        try:
            row = _canonical(raw, fields)
            unknown.update(one for one in row if one not in fields and one not in INFORMATION)
            rows.append((line, _values(row, fields, key, counted)))
        except InputError as error:
            faults.append(f"line {line}: {error}")
    if faults:
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise InputError(f"{path} {'; '.join(faults[:SHOWN])}{more}")
    if not rows:
        raise InputError(f"{path} holds no {key.replace('_', ' ')}s")
    if unknown:
        names = ", ".join(repr(one[:40]) for one in sorted(unknown)[:NAMED])
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        note(f"{path}: left alone, since no setting has the name: {names}{more}")
    return rows


def one_source(prompt: str | None, file: str | Path | None) -> None:
    """Raise InputError unless there is a prompt or a file of prompts, and for a prompt that is the name of one."""
    if (prompt is None) == (file is None):
        raise InputError("give either a prompt or --prompts FILE")
    if prompt is not None and prompt.endswith(SUFFIXES) and Path(prompt).is_file():
        raise InputError(f"the prompt {prompt!r} is a file: give it by --prompts")


def _read_txt(text: str, path: Path, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, prompt in enumerate(text.split("\n"), 1):
        if prompt.strip():
            yield line, {key: prompt.strip()}


def _read_csv(text: str, path: Path, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    try:
        names = reader.fieldnames or ()
        if key not in map(_canonical_name, names):
            hint = "; put commas between them, not semicolons" if any(";" in one for one in names) else ""
            raise InputError(f"{path} line 1: the first line must name the columns, one of them `{key}`{hint}")
        for row in reader:
            if None in row:
                raise InputError(f"{path} line {reader.line_num}: more cells than columns; quote a prompt with commas")
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{path} line {reader.reader.line_num}: {error}") from error


def _read_jsonl(text: str, path: Path, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, entry in enumerate(text.split("\n"), 1):
        if not entry.strip():
            continue
        try:
            row = json.loads(entry)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} line {line}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise InputError(f'{path} line {line}: not a JSON object, for instance {{"prompt": "a cat"}}')
        yield line, row


@lru_cache
def _canonical_name(column: str) -> str:
    """Our name of a column: "CFG scale" is guidance."""
    column = re.sub(r"[\s-]+", "_", column.strip().lower())
    return ALIASES.get(column, column)


def _canonical(raw: Mapping[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """The row under our names, without what is empty. Raises InputError for columns that could not act."""
    row: dict[str, Any] = {}
    for column, value in raw.items():
        ours = _canonical_name(column)
        if ours in MISSING:
            raise InputError(f"nothing here does what {shortened(repr(column))} asks for: leave the column out")
        if ours in SETTINGS and ours not in fields:
            raise InputError(f"{shortened(repr(column))} cannot be set per row here: leave the column out")
        if ours not in fields and ours not in INFORMATION and (meant := _meant(ours, tuple(fields))):
            raise InputError(f"unknown column {shortened(repr(column))}, is it {meant!r}?")
        if value is None or value == "":
            if ours not in fields:
                row.setdefault(ours, None)
            continue
        if ours in row and row[ours] != value:
            raise InputError(f"two columns say {ours!r}: {shortened(repr(row[ours]))} and {shortened(repr(value))}")
        row[ours] = value
    return row


@lru_cache(1024)
def _meant(column: str, fields: tuple[str, ...]) -> str | None:
    """The field that an unknown column is probably a slip of."""
    return next(iter(difflib.get_close_matches(column, fields, n=1, cutoff=0.75)), None)


def _values(row: Mapping[str, Any], fields: Fields, key: str, counted: bool) -> dict[str, Any]:
    """The row's known fields, converted and checked. Raises InputError."""
    if not isinstance(row.get(key, ""), str) or not row.get(key, "").strip():
        raise InputError(f"the {key} is empty")
    values = {one: _convert(fields[one], one, row[one]) for one in row if one in fields}
    if counted and ("label" in values) != ("count" in values):
        which = "class without a count" if "label" in values else "count without a class"
        raise InputError(f"a {which}: give both columns, class and count")
    return _with_size(_with_schedule(values))


def _with_schedule(values: dict[str, Any]) -> dict[str, Any]:
    """AUTOMATIC1111's sampler and schedule type, which stand in two columns, as one scheduler. Raises InputError."""
    schedule = values.pop("schedule_type", None)
    if schedule is None:
        return values
    if "scheduler" not in values:
        raise InputError("schedule_type goes with a sampler: its column is missing or empty")
    sampler = find_sampler(values["scheduler"], schedule)
    if sampler is None:
        raise InputError(f"sampler {shortened(repr(values['scheduler']))} with a schedule_type is not known here")
    return values | {"scheduler": str(sampler)}


def _with_size(values: dict[str, Any]) -> dict[str, Any]:
    """Width and height as size; half the width where the image shows two side by side. Raises InputError."""
    width, height = values.pop("width", None), values.pop("height", None)
    if (width is None) != (height is None):
        raise InputError("width and height go together: one of them is missing")
    if width is not None:
        size = parse_size(f"{width // 2 if values.get('compare') else width}x{height}")
        if values.setdefault("size", size) != size:
            raise InputError(f"size {format_size(values['size'])} is not width x height, {format_size(size)}")
    return values


def _convert(convert: Callable[[Any], Any], name: str, value: Any) -> Any:
    try:
        return convert(value)
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(name) else f"{name} {error}") from error
    except (TypeError, ValueError) as error:
        kind = "a number" if convert is number else "a whole number"
        raise InputError(f"{name} must be {kind}, not {shortened(repr(value))}") from error
