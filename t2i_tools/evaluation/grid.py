"""A grid of images: one prompt, axes of parameters and words, every cell a file of its own that is made once."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate, product
from math import prod
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image, ImageDraw, ImageFont

from t2i_tools.errors import InputError
from t2i_tools.evaluation.runs.items import digest
from t2i_tools.files import remove_parts
from t2i_tools.images.generate import Request
from t2i_tools.images.metadata import read_settings, save_image
from t2i_tools.images.open_image import open_image
from t2i_tools.images.promptfile import FIELDS
from t2i_tools.images.sizes import FITS

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

PARAMETERS = {name: FIELDS[name] for name in ("prompt", "negative", "size", "seed", "steps", "guidance")} | {"fit": str}
MOST_CELLS = 1000
TILE = 256
MARGIN = 6
Reader: TypeAlias = Callable[[str], Any]  # of an axis' value; raises ValueError
Make: TypeAlias = "Callable[[DiffusionPipeline, Request], tuple[Image.Image, Mapping[str, Any]]]"


@dataclass(frozen=True)
class Axis:
    """A parameter of `Request`, a plugin's option or a word in braces in the prompt, and its values, as texts."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """values: name of each axis -> text of this cell's value. plugins: option -> value."""

    values: Mapping[str, str]
    request: Request
    plugins: Mapping[str, Any] = field(default_factory=dict)


def parse_axis(text: str) -> Axis:
    """Read "steps=5,10,20".

    A value with a comma stands in quotes, or the values have "|" between them: 'word="red, blue",green' is
    'word=red, blue|green'.

    Raises:
        InputError: There is no name or no value, one comes twice, or a quote is not closed.
    """
    name, sign, values = text.partition("=")
    if values.count('"') % 2:
        raise InputError(f"axis {text!r} has a quote that is not closed")
    parts = _parted(values, "|")
    parts = parts if len(parts) > 1 else _parted(values, ",")
    if not (sign and name.strip() and parts and all(parts)):
        raise InputError(f"axis {text!r} is not NAME=VALUE,VALUE, for instance steps=5,10,20")
    if len(set(parts)) < len(parts):
        raise InputError(f"axis {text!r} has a value twice")
    return Axis(name.strip().replace("-", "_"), tuple(parts))


def _parted(values: str, sign: str) -> list[str]:
    """The values between the signs, without their quotes."""
    return [part.strip() for row in csv.reader([values], delimiter=sign, skipinitialspace=True) for part in row]


def grid_cells(
    prompt: str, axes: Sequence[Axis], fixed: Mapping[str, Any], options: Mapping[str, Reader] | None = None
) -> list[Cell]:
    """One cell a combination, the last axis slowest.

    fixed: the other fields of `Request`. options: those of plugins that may be an axis, and what reads their values.
    Raises InputError.
    """
    options = options or {}
    words = _words(prompt, (*PARAMETERS, *options))
    names = [axis.name for axis in axes]
    if not axes:
        raise InputError("a grid needs an axis, for instance --axis steps=5,10,20")
    if len(set(names)) < len(names):
        raise InputError("an axis comes twice: give its values together")
    for axis in axes:
        if axis.name not in (known := (*PARAMETERS, *options, *words)):
            raise InputError(
                f"unknown axis {axis.name!r}: choose {', '.join(known)}, or put {{{axis.name}}} into the prompt"
            )
    filled = [*names, "count"] if "count_token" in names else names  # the token's word takes the place of {count}
    if missing := [word for word in words if word not in filled]:
        raise InputError(f"the prompt has {{{missing[0]}}} in it: give its values, --axis {missing[0]}=one,two")
    if (cells := prod(len(axis.values) for axis in axes)) > MOST_CELLS:  # counted before they are made
        raise InputError(f"a grid of {cells} cells is too large: use {MOST_CELLS} or fewer")
    combinations = [values[::-1] for values in product(*(axis.values for axis in reversed(axes)))]
    return [_cell(prompt, dict(zip(names, values, strict=True)), fixed, options) for values in combinations]


def make_cell(
    pipe: DiffusionPipeline,
    cell: Cell,
    folder: Path,
    context: Mapping[str, Any],
    settings: Mapping[str, Any],
    make: Make,
) -> Path:
    """The file of a cell, generated alone in its batch unless it is there already.

    context: what determines the image besides the request: the model's hash, device, threads, versions, plugins.
    settings: for the file. make: gives the image, and more settings. Raises InputError, UnsupportedModelError or
    OutOfMemoryError.
    """
    key = digest({"request": asdict(cell.request), **context})[:32]
    name = re.sub(r"[^\w.]+", "-", "_".join(f"{name}-{value}" for name, value in cell.values.items())).strip("-")
    path = folder / "cells" / f"{name[:80]}-{key[:8]}.png"
    if _is_made(path, key):
        return path
    image, more = make(pipe, cell.request)
    remove_parts(path)
    save_image(image, path, {**settings, **more, "width": image.width, "height": image.height, "key": key})
    return path


def _is_made(path: Path, key: str) -> bool:
    """Whether a cell's file is there, whole, and of this key; else it is made again."""
    try:
        open_image(path)
        return read_settings(path).get("key") == key
    except InputError:
        return False


def draw_grid(axes: Sequence[Axis], images: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    """One labelled image: the first axis goes across, all others down; a caption stands under each cell."""
    columns = len(axes[0].values)
    tiles = [_shrunk(image) for image in images]
    font = ImageFont.load_default(size=13)
    lines = ["\n".join(f"{axis.name} {value}".strip() for axis, value in row) for row in _rows(axes)]
    left = max((_measure(text, font)[0] for text in lines), default=0) + 2 * MARGIN
    heads = [f"{axes[0].name} {value}".strip() for value in axes[0].values]
    text_width = max(_measure(text, font)[0] for text in (*heads, *captions))
    width = max(text_width, *(tile.width for tile in tiles)) + MARGIN
    caption = max(_measure(text, font)[1] for text in captions) if any(captions) else 0
    top = max(_measure(text, font)[1] for text in heads) + 2 * MARGIN
    tallest = (max(tile.height for tile in tiles[i : i + columns]) for i in range(0, len(tiles), columns))
    tops = list(accumulate((height + caption + 2 * MARGIN for height in tallest), initial=top))
    sheet = Image.new("RGB", (left + columns * width, tops[-1]), "white")
    pen = ImageDraw.Draw(sheet)
    for index, text in enumerate(heads):
        pen.text((left + index * width, MARGIN), text, fill="black", font=font)
    for index, text in enumerate(lines):
        pen.multiline_text((MARGIN, tops[index]), text, fill="black", font=font)
    for index, (tile, text) in enumerate(zip(tiles, captions, strict=True)):
        corner = (left + index % columns * width, tops[index // columns])
        sheet.paste(tile, corner)
        pen.multiline_text((corner[0], corner[1] + tile.height + 1), text, fill="black", font=font)
    return sheet


def read_cells(paths: Sequence[Path]) -> list[Image.Image]:
    """The images of the cells. Raises InputError."""
    return [open_image(path) for path in paths]


def _cell(prompt: str, values: Mapping[str, str], fixed: Mapping[str, Any], options: Mapping[str, Reader]) -> Cell:
    fields, plugins = _read(values, PARAMETERS), _read(values, options)
    text = fields.pop("prompt", prompt)
    for name in values.keys() - PARAMETERS.keys() - options.keys():
        text = text.replace(f"{{{name}}}", values[name])
    request = {**fixed, **fields}
    if request.get("fit", "crop") not in FITS:
        raise InputError(f"unknown fit {request['fit']!r}: choose {' or '.join(FITS)}")
    return Cell(values, Request(text, **request), plugins)


def _read(values: Mapping[str, str], readers: Mapping[str, Reader]) -> dict[str, Any]:
    read = {}
    for name in values.keys() & readers.keys():
        try:
            read[name] = readers[name](values[name])
        except ValueError as error:
            raise InputError(f"axis {name}: {values[name]!r} is not a valid value") from error
        except InputError as error:
            raise InputError(str(error) if str(error).startswith(name) else f"{name} {error}") from error
    return read


def _words(prompt: str, reserved: Sequence[str]) -> list[str]:
    try:
        names = [name for _, name, _, _ in Formatter().parse(prompt) if name is not None]
    except ValueError as error:
        raise InputError(f"the prompt has a brace without its partner: {prompt!r}") from error
    if bad := [name for name in names if not re.fullmatch(r"\w+", name) or name in reserved]:
        raise InputError(f"{{{bad[0]}}} in the prompt cannot name an axis: use one word that is not an option")
    return list(dict.fromkeys(names))


def _rows(axes: Sequence[Axis]) -> list[list[tuple[Axis, str]]]:
    """The values of all axes but the first, one row of the image each."""
    others = axes[1:]
    combinations = product(*(axis.values for axis in reversed(others)))
    return [list(zip(others, values[::-1], strict=True)) for values in combinations]


def _shrunk(image: Image.Image) -> Image.Image:
    copy = image.copy()
    copy.thumbnail((TILE, TILE))
    return copy


def _measure(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> tuple[int, int]:
    """(width, height) in pixels."""
    left, top, right, bottom = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), text, font=font)
    return int(right - min(0, left)) + 1, int(bottom - min(0, top)) + 3
