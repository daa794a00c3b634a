"""The parts that all pages are made of: inputs and options at one side, results at the other."""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from t2i_tools.errors import T2IError

from . import render
from .jobs import KINDS
from .service import Service
from .values import read_values


def inputs() -> gr.Column:
    """What a job is made of, and the buttons."""
    return gr.Column(scale=5, min_width=320, elem_classes="t2i-inputs")


def options() -> gr.Column:
    """What may stay as it is; on a phone below the results."""
    return gr.Column(elem_classes="t2i-options")


def results() -> gr.Column:
    """What comes of it."""
    return gr.Column(scale=6, min_width=320, elem_classes="t2i-results")


def buttons(kind: str, run: str, cancel: str = "Cancel") -> tuple[gr.Button, gr.Button]:
    """The one that starts a job, and the one that ends it."""
    with gr.Row():
        start = gr.Button(run, variant="primary", scale=3, min_width=120, elem_id=f"{kind}-run")
        stop = gr.Button(cancel, interactive=False, scale=1, min_width=100, elem_id=f"{kind}-cancel")
    return start, stop


def chooser(names: Sequence[Any], label: str, **more: Any) -> gr.Dropdown:
    """One of several, at first the first."""
    first = names[0][1] if isinstance(names[0], tuple) else names[0]
    return gr.Dropdown(list(names), value=first, label=label, **more)


def size_box() -> gr.Textbox:
    """A size in pixels."""
    return gr.Textbox("", label="Size", placeholder="WxH; the model's own", max_lines=1, min_width=110)


def seed_box(value: str = "", label: str = "Seed") -> gr.Textbox:
    """A seed; a text, for numbers of the browser's lose the last bits of a large one."""
    return gr.Textbox(value, label=label, placeholder="random", max_lines=1, min_width=110)


def number_box(label: str, value: float | None = None, placeholder: str = "usual") -> gr.Textbox:
    """A number that may be left out, for which Gradio's own box shows 0. The job says what is wrong with it."""
    text = "" if value is None else str(value)
    return gr.Textbox(text, label=label, placeholder=placeholder, max_lines=1, min_width=80)


def steps_box(value: int | None = None) -> gr.Textbox:
    """Denoising steps."""
    return number_box("Steps", value)


def gallery(label: str, columns: int) -> gr.Gallery:
    """Images, once there are some; each a file, so that its metadata survive."""
    return gr.Gallery(
        label=label,
        show_label=False,  # which would cover an image
        columns=columns,
        fit_columns=False,
        height="auto",
        object_fit="contain",
        buttons=["download", "fullscreen"],
        visible=False,
    )


def images(files: Sequence[Any]) -> gr.Gallery:
    """A gallery's next value: files, or (file, caption) pairs."""
    return gr.Gallery(list(files), visible=bool(files))


def downloads(label: str) -> gr.File:
    """Files to take away, once there are some."""
    return gr.File(label=label, file_count="multiple", interactive=False, visible=False)


def files(paths: Sequence[str]) -> gr.File:
    """The next value of `downloads`."""
    return gr.File(list(paths), visible=bool(paths))


def forecast(service: Service, kind: str, values: Mapping[str, Any]) -> str:
    """How many images a form asks for and how long they take, as HTML; nothing while it asks for none."""
    try:
        return render.hint(service.forecast(kind, read_values(KINDS[kind].values, dict(values))))
    except T2IError:  # it is said when the job is started
        return ""


def written(
    service: Service, fields: Mapping[str, gr.components.Component], values: Mapping[str, Any]
) -> dict[str, Any]:
    """What each field is to show of a job's values, under the same name; as at the start where they say nothing."""
    shown: dict[str, Any] = {}
    for name, field in fields.items():
        value = field.value if values.get(name) is None else values[name]
        shown[name] = str(value) if isinstance(field, gr.Textbox) and value is not None else value
    if "model" in fields and shown["model"] not in service.registry.models():
        shown["model"] = gr.skip()
    return shown


def stripped(shown: dict[str, Any]) -> dict[str, Any]:
    """What controls hold, texts without blanks around them."""
    return {name: value.strip() if isinstance(value, str) else value for name, value in shown.items()}
