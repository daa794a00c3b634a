"""The page on which one prompt is compared over sizes, seeds, steps, plugins or words."""

from typing import Any

import gradio as gr

from t2i_tools.errors import InputError
from t2i_tools.workflows.plugins import plugin_axes

from .. import layout, render
from ..job_panel import LATEST, JobPanel
from ..jobs.grid import GridValues
from ..queue import Job
from ..registry import NONE
from ..ruler import vocabulary_html
from ..service import Service
from ..values import read_values

EXAMPLE = "three cats on a {colour} background"
AXES = ["steps", "guidance", "seed", "size", "negative", "prompt"]
USUAL_CLIP = ("the bundled one, for the bundled model", "")


def grid_tab(service: Service, page: gr.Blocks) -> None:
    """Builds and wires the page."""
    with gr.Row():
        with layout.inputs():
            prompt = gr.Textbox(EXAMPLE, label="Prompt", lines=2, info="A {word} in braces is an axis")
            vocabulary = gr.HTML("", elem_id="grid-vocabulary", padding=False)
            run, cancel = layout.buttons("grid", "Make the grid")
            with layout.options():
                fields = {"prompt": prompt} | _axes() | _details(service)
        with layout.results():
            panel = JobPanel(service, "grid", "The grid will appear here.")
            image = gr.Image(
                label="Grid", type="filepath", interactive=False, buttons=["download", "fullscreen"], visible=False
            )
            measured = gr.HTML("", label="Measured in each cell", padding=False)
            files = layout.downloads("Cells")

    def show(job: Job) -> list[Any]:
        paths = [str(path) for path in service.paths(job)]
        table = render.table(job.result.get("cells", ()), "Each cell, with what was measured")
        return [gr.Image(next(iter(paths), None), visible=bool(paths)), table, layout.files(paths[1:])]

    def note(*values: Any) -> str:
        shown = dict(zip(fields, values, strict=True))
        return vocabulary_html(shown["model"], *prompts_of(shown, service.options.limits.cells))

    noted = [fields[name] for name in ("prompt", "across", "across_values", "down", "down_values", "model")]
    gr.on([field.change for field in noted], note, list(fields.values()), vocabulary, **LATEST)
    panel.connect(
        page,
        run,
        cancel,
        fields,
        read_fields,
        [image, measured, files],
        show,
        also=[prompt.submit],
        places={"axes": "across_values"},
    )


def read_fields(shown: dict[str, Any]) -> dict[str, Any]:
    """From what the controls hold to the values of the kind."""
    shown = layout.stripped(shown)
    axes = [
        f"{shown[name]}={shown[f'{name}_values']}"
        for name in ("across", "down")
        if shown[name] and shown[f"{name}_values"]
    ]
    names = ("prompt", "label", "seed", "size", "negative", "judge", "clip", "model")
    return {name: shown[name] for name in names} | {"axes": axes}


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
