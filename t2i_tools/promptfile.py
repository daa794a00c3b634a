"""Prompts from a file: .txt (one a line), .csv (first line names the columns) or .jsonl (one object a line).

Rows may carry values of their own, which go before those of the command line: see FIELDS.
"""

import csv
import difflib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from t2i_tools.errors import InputError
from t2i_tools.sizes import parse_size


def whole(value: Any) -> int:
    """An int from a JSON number or text. Raises ValueError."""
    return int(str(value))


FIELDS: Mapping[str, Callable[[Any], Any]] = {
    "prompt": str,
    "negative": str,
    "size": lambda value: parse_size(str(value)),
    "seed": whole,
    "steps": whole,
    "guidance": lambda value: float(str(value)),
    "number": whole,
}
# What an evaluation reads besides: which class is to be seen, and how often.
LABELLED = {**FIELDS, "label": str, "count": whole}
ALIASES = {
    "class": "label",
    "negative_prompt": "negative",
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
}


Fields = Mapping[str, Callable[[Any], Any]]


def read_prompts(path: str | Path, fields: Fields = FIELDS, key: str = "prompt") -> list[tuple[int, dict[str, Any]]]:
    """The rows of a prompts file as (line number, values); a value not given is absent, that of `key` never is.

    fields: the columns to read and what converts each, see FIELDS and LABELLED. Columns it does not know are left
    alone, unless they look like a slip of one it does.
    Raises InputError that names the line.
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
    rows = [(line, _values(values, f"{path} line {line}", fields, key)) for line, values in read(text, path, key)]
    if not rows:
        raise InputError(f"{path} holds no {key.replace('_', ' ')}s")
    return rows


def _read_txt(text: str, path: Path, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, prompt in enumerate(text.split("\n"), 1):
        if prompt.strip():
            yield line, {key: prompt.strip()}


def _read_csv(text: str, path: Path, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    try:
        if key not in (reader.fieldnames or ()):
            raise InputError(f"{path} line 1: the first line must name the columns, one of them `{key}`")
        for row in reader:
            if None in row:
                raise InputError(f"{path} line {reader.line_num}: more cells than columns; quote a prompt with commas")
            yield reader.line_num, {name: cell for name, cell in row.items() if cell}
    except csv.Error as error:
        raise InputError(f"{path} line {reader.reader.line_num}: {error}") from error


def _read_jsonl(text: str, path: Path, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, entry in enumerate(text.split("\n"), 1):
        if not entry.strip():
            continue
        try:
            row = json.loads(entry)
        except ValueError as error:
            raise InputError(f"{path} line {line}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise InputError(f'{path} line {line}: not a JSON object, for instance {{"prompt": "a cat"}}')
        yield line, {name: value for name, value in row.items() if value is not None}


def _values(row: dict[str, Any], place: str, fields: Fields, key: str) -> dict[str, Any]:
    """The row's known fields, converted."""
    row = {ALIASES.get(name, name): value for name, value in row.items()}
    for name in row.keys() - fields.keys():
        if close := difflib.get_close_matches(name.lower(), fields, n=1, cutoff=0.75):
            raise InputError(f"{place}: unknown column {name!r}, is it {close[0]!r}?")
    if not isinstance(row.get(key, ""), str) or not row.get(key, "").strip():
        raise InputError(f"{place}: the {key} is empty")
    return {name: _convert(fields[name], name, row[name], place) for name in fields if name in row}


def _convert(convert: Callable[[Any], Any], name: str, value: Any, place: str) -> Any:
    try:
        return convert(value)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    except ValueError as error:
        kind = "a number" if name == "guidance" else "a whole number"
        raise InputError(f"{place}: {name} must be {kind}, not {value!r}") from error
