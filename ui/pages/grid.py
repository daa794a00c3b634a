"""The page on which one prompt is compared over sizes, seeds, steps, plugins or words."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import gradio as gr

from t2i_tools.errors import InputError
from t2i_tools.workflows.plugins import plugin_axes

from .. import layout
from ..errors import FieldError
from ..job_panel import LATEST, QUIET, JobPanel
from ..jobs.grid import GRID, GridValues
from ..queue import Job
from ..registry import NONE
from ..ruler import vocabulary_html
from ..service import Service
from ..stage import Figure, matrix_html, stage_html
from ..values import read_values

EXAMPLE = "three cats on a {colour} background"
# Axis -> values to begin with.
SUGGESTED = {
    "steps": "5, 10, 20",
    "guidance": "1, 3, 5",
    "seed": "1, 2, 3",
    "size": "128x128, 256x128",
    "colour": "red, blue",
}
SUGGESTED |= {
    "entropy-scaling": "off, on",
    "two-pass": "off, on",
    "deep-shrink": "off, on",
    "long-prompts": "truncate, chunk",
}
AXES = ["steps", "guidance", "seed", "size", "negative", "prompt"]
Fields = dict[str, gr.components.Component]
USUAL_CLIP = ("the bundled one, for the bundled model", "")


def grid_tab(service: Service, page: gr.Blocks) -> JobPanel:
    """Builds and wires the page."""
    with gr.Row():
        with layout.inputs():
            prompt = gr.Textbox(EXAMPLE, label="Prompt", lines=2, info="A {word} in braces is an axis")
            vocabulary = gr.HTML("", elem_id="grid-vocabulary", padding=False)
            forecast = gr.HTML("", elem_id="grid-forecast", padding=False)
            run, cancel = layout.buttons("grid", "Make the grid")
            with layout.options():
                fields = {"prompt": prompt} | _axes() | _details(service)
        with layout.results():
            panel = JobPanel(service, "grid", "The grid will appear here.")
            stage = gr.HTML("", elem_id="grid-stage", label="Cells", padding=False)
            panel.place_actions()
            files = layout.downloads("The grid as one image, and its cells")

    def show(job: Job) -> list[Any]:
        paths = service.paths(job)
        return [grid_html(job, [path for path in paths if path.name != GRID]), layout.files(list(map(str, paths)))]

    def note(*values: Any) -> list[str]:
        shown, most = dict(zip(fields, values, strict=True)), service.options.limits.cells
        try:
            time = layout.forecast(service, "grid", read_fields({**shown, "label": ""}))
        except InputError:  # it is said when the job is started
            time = ""
        return [vocabulary_html(shown["model"], *prompts_of(shown, most)), time]

    noted = [fields[name].change for name in ("prompt", "across", "across_values", "down", "down_values", "model")]
    noted += [fields["size"].change, page.load, panel.shown.change]  # after a job the machine's pace is known better
    panel.forecast = (note, list(fields.values()), [vocabulary, forecast])
    gr.on(noted, *panel.forecast, **LATEST)
    for name in ("across", "down"):
        fields[name].input(SUGGESTED.get, fields[name], fields[f"{name}_values"], **QUIET)
    panel.connect(
        page,
        run,
        cancel,
        fields,
        read_fields,
        [stage, files],
        show,
        partial(write_fields, service, fields),
        also=[prompt.submit],
        places={"axes": "across_values"},
    )
    return panel


def grid_html(job: Job, cells: Sequence[Path]) -> str:
    """The cells that are there under their axes: the first goes across, the others down."""
    axes = GridValues(**job.asked).parsed_axes()
    if not axes or not cells:
        return stage_html([Figure(path, "") for path in cells])
    rows, across = job.result.get("cells", ()), axes[0]
    down = [", ".join(values) for values in product(*(axis.values for axis in axes[1:]))]
    names = [f"{'; '.join(filter(None, [value, row]))}" for row in down for value in across.values]
    known, objects = [axis.name for axis in axes], job.result.get("objects", ())
    figures = []
    for index, path in enumerate(cells[: len(names)]):
        measured = {name: value for name, value in _at(rows, index, {}).items() if name not in known}
        found = _at(objects, index, [])
        counted = [one["label"] for one in found]  # which the stage's caption says by itself
        caption = [names[index], *(f"{name} {value}" for name, value in measured.items() if name not in counted)]
        note = " · ".join(f"{name} {value}" for name, value in measured.items())
        figures.append(Figure(path, " · ".join(filter(None, caption)), found, note))
    corner = " \\ ".join([*(axis.name for axis in axes[1:]), across.name])
    return matrix_html(across.values, down, figures, corner=corner, name="cell")


def _at(values: Sequence[Any], index: int, missing: Any) -> Any:
    return values[index] if index < len(values) else missing


def read_fields(shown: dict[str, Any]) -> dict[str, Any]:
    """From what the controls hold to the values of the kind. Raises FieldError."""
    shown = layout.stripped(shown)
    axes = [f"{shown[name]}={shown[f'{name}_values']}" for name in ("across", "down") if _is_axis(shown, name)]
    names = ("prompt", "label", "seed", "size", "negative", "judge", "clip", "model")
    return {name: shown[name] for name in names} | {"axes": axes}


def _is_axis(shown: Mapping[str, Any], name: str) -> bool:
    """Return whether an axis is set. Raises FieldError for an axis without values, and for values without an axis."""
    axis, values = shown[name], shown[f"{name}_values"]
    if axis and not values:
        raise FieldError(f"{name}_values", f"give the values of {axis}, separated by commas, or clear {axis}")
    if values and not axis:
        raise FieldError(name, f"choose the setting that the values {values} belong to, or clear them")
    return bool(axis)


def write_fields(service: Service, fields: Fields, owner: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `read_fields`. The form has room for two axes; what more there are, it says."""
    axes = [text.partition("=") for text in values.get("axes") or ()]
    shown = layout.written(service, fields, {**values, "clip": values.get("clip") or ""})
    for name, (axis, _, texts) in zip(("across", "down"), [*axes, ("", "", ""), ("", "", "")], strict=False):
        shown |= {name: axis, f"{name}_values": texts}
    if len(axes) > 2:
        gr.Warning(f"The form holds two axes; not filled in: {', '.join('='.join(a[::2]) for a in axes[2:])}")
    return shown


def prompts_of(shown: dict[str, Any], most: int) -> list[str]:
    """The prompts of all cells; the prompt as it stands while the axes are being written, or make more than `most`."""
    try:
        values = read_values(GridValues, read_fields(shown))
        if values.count() <= most:
            return list(dict.fromkeys(cell.request.prompt for cell in values.cells()))
    except InputError:
        pass
    return [shown["prompt"] or ""]


def _axes() -> dict[str, gr.components.Component]:
    known = [*AXES, *(name.replace("_", "-") for name in plugin_axes())]
    with gr.Row():
        across = gr.Dropdown(known, value="steps", allow_custom_value=True, label="Across", min_width=110)
        across_values = gr.Textbox("5, 10, 20", label="Values across", min_width=150)
    with gr.Row():
        down = gr.Dropdown([*known, "colour"], value="colour", allow_custom_value=True, label="Down", min_width=110)
        down_values = gr.Textbox("red, blue", label="Values down", min_width=150)
    return {"across": across, "across_values": across_values, "down": down, "down_values": down_values}


def _details(service: Service) -> dict[str, gr.components.Component]:
    registry = service.registry
    with gr.Row():
        label = gr.Textbox("cat", label="Count in every cell", placeholder="a class", min_width=120)
        seed = layout.seed_box()
    with gr.Accordion("Size, negative prompt, model, judges", open=False):
        size = layout.size_box()
        negative = gr.Textbox("", label="Negative prompt", placeholder="What the image should not show")
        model = layout.chooser(list(registry.models()), "Model")
        judge = layout.chooser(list(registry.judges()), "Judge that counts")
        clip = layout.chooser([USUAL_CLIP, *registry.clips(), NONE], "CLIP that scores every cell")
    fields = {"label": label, "seed": seed, "size": size, "negative": negative, "model": model}
    return fields | {"judge": judge, "clip": clip}
