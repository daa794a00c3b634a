"""The stage: one image as large as whole multiples of its pixels allow, with its caption below and its boxes on it.

Choosing, zooming and comparing are done in the browser (stage.js); the looks are in stage.css.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

SIDES = ("before", "after")
SMALL, MEDIUM = 340, 640  # pixels that go at least once into a phone, and into the stage of a desk


@dataclass(frozen=True)
class Figure:
    """An image on the stage. objects: what was asked and counted, as `count_objects` gives it. note: in a matrix."""

    path: Path
    caption: str
    objects: Sequence[Mapping[str, Any]] = ()
    note: str = ""


def stage_html(figures: Sequence[Figure], *, compare: bool = False, name: str = "image") -> str:
    """The first figure large and all as small ones to choose from; with `compare`, two of one size under a slider."""
    if not figures:
        return ""
    sizes = [_size(figure.path) for figure in figures]
    if compare and len(figures) == 2 and sizes[0] == sizes[1]:
        return _stage(_pair(figures, sizes[0]), figures)
    shown = "".join(_figure(one, size, index > 0) for index, (one, size) in enumerate(zip(figures, sizes, strict=True)))
    return _stage(shown + (_choice(figures, name) if len(figures) > 1 else ""), figures)


def matrix_html(
    columns: Sequence[str], rows: Sequence[str], figures: Sequence[Figure], *, corner: str = "", name: str = "image"
) -> str:
    """One figure large, and all small under heads to choose from, row by row; those not made yet stay empty."""
    if not figures:
        return ""
    shown = "".join(_figure(one, _size(one.path), index > 0) for index, one in enumerate(figures))
    head = "".join(f"<th scope='col'>{escape(text)}</th>" for text in columns)
    lines = []
    for row, text in enumerate(rows):
        places = range(row * len(columns), (row + 1) * len(columns))
        cells = "".join(f"<td>{_cell(figures, place, name)}</td>" for place in places)
        lines.append(f"<tr><th scope='row'>{escape(text)}</th>{cells}</tr>")
    table = (
        f"<div class='t2i-scroll' role='region' aria-label='All images' tabindex='0'><table class='t2i-matrix'>"
        f"<thead><tr><th scope='col'>{escape(corner)}</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
        "</table></div>"
    )
    return _stage(shown, figures, table)


def preview_html(url: str, size: tuple[int, int]) -> str:
    """An image while it is made, where and as large as it will be."""
    image = f"<img class='{_kind(size)}' src='{url}' alt='the image so far'>"
    return f"<div class='t2i-stage'><figure><div class='t2i-frame' {_sides(size)}>{image}</div></figure></div>"


def count_line(objects: Sequence[Mapping[str, Any]]) -> str:
    """ "7 apples asked, 6 counted", for each class, as HTML."""
    lines = []
    for one in objects:
        if "asked" not in one:
            lines.append(f"{escape(one['label'])}: <b>{one['counted']} counted</b>")
            continue
        right = one["asked"] == one["counted"]
        mark = f"<b class='{'t2i-right' if right else 't2i-wrong'}'>{one['counted']} counted</b>"
        lines.append(f"{escape(one['label'])}: {one['asked']} asked, {mark}")
    return " · ".join(lines)


def _stage(inside: str, figures: Sequence[Figure], below: str = "") -> str:
    switch = ""
    if any(one["boxes"] for figure in figures for one in figure.objects):
        switch = "<label class='t2i-switch'><input type='checkbox' data-act='boxes'> Boxes</label>"
    return f"<div class='t2i-stage'>{inside}<div class='t2i-tools'>{switch}{_download(figures)}</div>{below}</div>"


def _download(figures: Sequence[Figure]) -> str:
    path = figures[0].path
    return f"<a class='t2i-download' href='{image_url(path)}' download='{escape(path.name)}'>Download</a>"


def _figure(figure: Figure, size: tuple[int, int], hidden: bool) -> str:
    frame = _image(figure, size)
    return (
        f"<figure{' hidden' if hidden else ''}><button type='button' class='t2i-frame' data-act='zoom' "
        f"title='Enlarge' {_sides(size)}>{frame}</button>{_caption(figure, size)}</figure>"
    )


def _pair(figures: Sequence[Figure], size: tuple[int, int]) -> str:
    """Both in one frame, the second uncovered from the right as far as the slider says."""
    images = "".join(
        f"<div class='t2i-side t2i-{side}'>{_image(figure, size)}</div>"
        for side, figure in zip(SIDES, figures, strict=True)
    )
    captions = "".join(_caption(figure, size) for figure in figures)
    return (
        f"<figure class='t2i-pair'><div class='t2i-frame' {_sides(size)}>{images}</div>"
        "<input type='range' min='0' max='100' value='50' data-act='split' aria-label='Left image, right image'>"
        f"<div class='t2i-captions'>{captions}</div></figure>"
    )


def _choice(figures: Sequence[Figure], name: str) -> str:
    buttons = "".join(_chooser(figures, index, name) for index in range(len(figures)))
    return f"<div class='t2i-choice' role='group' aria-label='All images'>{buttons}</div>"


def _cell(figures: Sequence[Figure], place: int, name: str) -> str:
    if place >= len(figures):
        return ""
    note = figures[place].note
    return _chooser(figures, place, name) + (f"<span>{escape(note)}</span>" if note else "")


def _chooser(figures: Sequence[Figure], index: int, name: str) -> str:
    figure = figures[index]
    return (
        f"<button type='button' data-act='choose' aria-pressed='{'false' if index else 'true'}' "
        f"aria-label='{escape(name)} {index + 1}: {escape(figure.caption)}'>"
        f"<img class='{_kind(_size(figure.path))}' src='{image_url(figure.path)}' alt='' loading='lazy'></button>"
    )


def _caption(figure: Figure, size: tuple[int, int]) -> str:
    counted = count_line(figure.objects)
    text = " · ".join(filter(None, [escape(figure.caption), f"{size[0]} × {size[1]}", counted]))
    return f"<figcaption>{text}</figcaption>"


def _image(figure: Figure, size: tuple[int, int]) -> str:
    image = f"<img class='{_kind(size)}' src='{image_url(figure.path)}' alt='{escape(figure.caption)}'>"
    return image + _boxes(figure, size)


def _kind(size: tuple[int, int]) -> str:
    """The class by which stage.css gives crisp pixels to what is enlarged, and not to what is shrunk."""
    side = max(size)
    return "t2i-small" if side <= SMALL else "t2i-medium" if side <= MEDIUM else "t2i-large"


def _boxes(figure: Figure, size: tuple[int, int]) -> str:
    boxes = "".join(
        f"<rect x='{x0}' y='{y0}' width='{max(x1 - x0, 1)}' height='{max(y1 - y0, 1)}'/>"
        for one in figure.objects
        for x0, y0, x1, y1 in one["boxes"]
    )
    view = f"viewBox='0 0 {size[0]} {size[1]}' preserveAspectRatio='none' aria-hidden='true'"
    return f"<svg class='t2i-boxes' {view}>{boxes}</svg>" if boxes else ""


def _sides(size: tuple[int, int]) -> str:
    return f"style='--w:{size[0]}px;--ratio:{size[0] / size[1]:.6f}'"


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def image_url(path: Path) -> str:
    """Where Gradio serves a file of the output folder, seen from the page at whatever path a proxy shows it."""
    return f"gradio_api/file={quote(str(path))}"
