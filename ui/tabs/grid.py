"""The page on which one prompt is compared over sizes, seeds, steps, plugins or words."""

from typing import Any

import gradio as gr

from t2i_tools.cli.plugins import plugin_axes
from t2i_tools.ui import layout, view
from t2i_tools.ui.desk import Desk
from t2i_tools.ui.jobs import Job
from t2i_tools.ui.panel import Panel
from t2i_tools.ui.shelf import NONE

AXES = ["steps", "guidance", "seed", "size", "negative", "prompt"]
USUAL_CLIP = ("the bundled one, for the bundled model", "")


def grid_tab(desk: Desk, page: gr.Blocks) -> None:
    """Builds and wires the page."""
    with gr.Row():
        with layout.inputs():
            prompt = gr.Textbox("three {colour} cats", label="Prompt", lines=2, info="A {word} in braces is an axis")
            run, cancel = layout.buttons("grid", "Make the grid")
            with layout.options():
                fields = {"prompt": prompt} | _axes() | _details(desk)
        with layout.results():
            panel = Panel(desk, "grid", "The grid will appear here.")
            picture = gr.Image(
                label="Grid", type="filepath", interactive=False, buttons=["download", "fullscreen"], visible=False
            )
            measured = gr.HTML("", label="Measured in each cell", padding=False)
            files = layout.downloads("Cells")

    def show(job: Job) -> list[Any]:
        whole, *cells = [str(path) for path in desk.paths(job)] or [None]
        table = view.table(job.result.get("cells", ()), "Each cell, with what was measured")
        return [gr.Image(whole, visible=bool(whole)), table, layout.files(cells)]

    panel.connect(page, run, cancel, fields, read_fields, [picture, measured, files], show, also=[prompt.submit])


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


def _axes() -> dict[str, gr.components.Component]:
    known = [*AXES, *(name.replace("_", "-") for name in plugin_axes())]
    with gr.Row():
        across = gr.Dropdown(known, value="steps", allow_custom_value=True, label="Across", min_width=110)
        across_values = gr.Textbox("5, 10, 20", label="Values across", min_width=150)
    with gr.Row():
        down = gr.Dropdown([*known, "colour"], value="colour", allow_custom_value=True, label="Down", min_width=110)
        down_values = gr.Textbox("red, blue", label="Values down", min_width=150)
    return {"across": across, "across_values": across_values, "down": down, "down_values": down_values}


def _details(desk: Desk) -> dict[str, gr.components.Component]:
    shelf = desk.shelf
    with gr.Row():
        label = gr.Textbox("cat", label="Count in every cell", placeholder="a class", min_width=120)
        seed = layout.seed_box()
    with gr.Accordion("Size, negative prompt, model, judges", open=False):
        size = layout.size_box()
        negative = gr.Textbox("", label="Negative prompt", placeholder="What to stay away from")
        model = layout.chooser(list(shelf.models()), "Model")
        judge = layout.chooser(list(shelf.judges()), "Judge that counts")
        clip = layout.chooser([USUAL_CLIP, *shelf.clips(), NONE], "CLIP that scores every cell")
    fields = {"label": label, "seed": seed, "size": size, "negative": negative, "model": model}
    return fields | {"judge": judge, "clip": clip}
