"""The size of an image: a shape and a scale, or what is typed, and in words what that is to the model."""

import math
from collections.abc import Callable
from typing import Any

import gradio as gr

from t2i_tools.images.sizes import possible_size
from t2i_tools.workflows.open_model import BUNDLED

from .. import layout, render
from ..advice import size_advice
from ..job_panel import LATEST, QUIET
from ..model_sizes import ModelSize
from ..service import Service

SHAPES = {"1:1": 1.0, "4:3": 4 / 3, "3:4": 3 / 4, "16:9": 16 / 9, "9:16": 9 / 16}
SCALES = {"half": 0.5, "as trained": 1.0, "1.5 times": 1.5, "double": 2.0}
TRAINED = "as trained"
OPENING = 60.0  # seconds that a page's first look waits for the model
Pixels = tuple[int | None, int | None]


class SizeControls:
    """Shape, scale, width and height. The numbers count; shape and scale follow what is typed, and write them."""

    def __init__(self, service: Service):
        self.service = service
        self.shape = gr.Radio(list(SHAPES), value="1:1", label="Shape", elem_id="shape")
        with gr.Row():
            self.scale = gr.Dropdown(list(SCALES), value=TRAINED, label="Scale", min_width=130, elem_id="scale")
            width, height = self._first()
            self.width = layout.number_box("Width", width, "its own")
            self.height = layout.number_box("Height", height, "its own")
        self.note = gr.HTML("", elem_id="size-note", padding=False)

    def connect(self, model: gr.Dropdown, restored: Any) -> None:
        """Wire them. model: whose size it is about. restored: the event that fills in what the browser has kept."""
        numbers, own = [self.width, self.height], self.service.registry.model_size
        inputs: list[Any] = [self.shape, self.scale, model, *numbers]
        # A dropdown also reports a choice when it is only left: what was there before decides whether it is one.
        seen = gr.State([self.shape.value, self.scale.value, model.value])

        def note_of(width: int | None, height: int | None, name: str) -> str:
            size = (height, width) if height and width else None
            return size_note(width, height, own(name)) + size_advice(size, name == BUNDLED)

        def choose(*values: Any) -> list[Any]:
            shape, scale, name, width, height, last = values
            if [shape, scale, name] == last:
                return [gr.skip()] * 6
            now = [shape, scale, name]
            shape, scale, width, height = chosen(now, last, whole(width), whole(height), own(name))
            note = note_of(width, height, name)
            return [shape, scale, _text(width), _text(height), [shape, scale, name], note]

        def follow(shape: str | None, scale: str, name: str, *texts: str) -> list[Any]:
            width, height = map(whole, texts)
            shape, scale = shape_of(width, height, own(name), scale)
            return [shape, scale, [shape, scale, name], note_of(width, height, name)]

        def begin(shape: str | None, scale: str, name: str, *texts: str) -> list[Any]:
            self.service.registry.reader(OPENING)
            if (size := own(name)) is None or any(texts):
                return [gr.skip(), gr.skip(), note_of(whole(texts[0]), whole(texts[1]), name)]
            width, height = pixels("1:1", TRAINED, size)
            return [_text(width), _text(height), note_of(width, height, name)]

        events: list[Callable[..., Any]] = [self.shape.input, self.scale.input, model.input]
        gr.on(events, choose, [*inputs, seen], [self.shape, self.scale, *numbers, seen, self.note], **QUIET)
        gr.on([n.change for n in numbers], follow, inputs, [self.shape, self.scale, seen, self.note], **LATEST)
        restored.then(begin, inputs, [*numbers, self.note], **QUIET)

    def _first(self) -> Pixels:
        registry = self.service.registry
        size = registry.model_size(next(iter(registry.models())))
        return pixels("1:1", TRAINED, size) if size else (None, None)


def chosen(
    now: list[Any], last: list[Any], width: int | None, height: int | None, size: ModelSize | None
) -> tuple[str | None, str, int | None, int | None]:
    """Shape, scale, width and height after a choice; a typed size outlives the choice of another model.

    now, last: shape, scale and model, as they are and as they were. size: of the model that is chosen now.
    """
    shape, scale, model = now
    if model != last[2]:
        if shape is None:
            return shape, scale, width, height
        if size is None:  # no numbers stand for the model's own
            return "1:1", TRAINED, None, None
    elif size is None:
        return *shape_of(width, height, None, scale), width, height
    shape = shape or "1:1"
    return shape, scale, *pixels(shape, scale, size)


def pixels(shape: str, scale: str, size: ModelSize) -> tuple[int, int]:
    """(width, height) with as many pixels as the model was trained on, times the scale."""
    if shape == "1:1" and scale == TRAINED:
        return size.native[1], size.native[0]
    side, ratio = SCALES[scale] * math.sqrt(size.native[0] * size.native[1]), math.sqrt(SHAPES[shape])
    height, width = possible_size((round(side / ratio), round(side * ratio)), size.multiple, "snap")
    return width, height


def shape_of(width: int | None, height: int | None, size: ModelSize | None, scale: str) -> tuple[str | None, str]:
    """The shape and scale that make these numbers; no shape where none does. scale: the one to be tried first."""
    if not width and not height:
        return "1:1", TRAINED
    if size:
        for tried in (scale, *SCALES):
            for shape in SHAPES:
                if pixels(shape, tried, size) == (width, height):
                    return shape, tried
    return None, scale


def size_note(width: int | None, height: int | None, size: ModelSize | None) -> str:
    """What the numbers are to the model, in words."""
    own = f"{size.native[1]} × {size.native[0]}" if size else "known once it has been opened"
    if not width and not height:
        return render.hint(f"The model's own size, {own}")
    if not width or not height:
        return render.hint("Type both width and height, or neither for the model's own size")
    if size and size.native == (height, width):
        return render.hint(f"{width} × {height} pixels, as the model was trained")
    return render.hint(f"{width} × {height} pixels; the model's own size is {own}")


def whole(text: str | None) -> int | None:
    """The whole number in a text, None where there is none."""
    text = (text or "").strip()
    return int(text) if text.isdecimal() and len(text) <= 9 else None


def _text(number: int | None) -> str:
    return "" if number is None else str(number)
