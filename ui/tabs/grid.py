"""The page on which one prompt is compared over sizes, seeds, steps or words."""

from typing import Any

import gradio as gr

from t2i_tools.ui import view
from t2i_tools.ui.desk import Desk
from t2i_tools.ui.jobs import Job
from t2i_tools.ui.panel import Panel

AXES = ["steps", "guidance", "seed", "size", "negative", "prompt"]


def grid_tab(desk: Desk, page: gr.Blocks) -> None:
    """Builds and wires the page."""
    models, judges = list(desk.shelf.models()), list(desk.shelf.judges())
    with gr.Row():
        with gr.Column(scale=5, min_width=320, elem_classes="t2i-inputs"):
            prompt = gr.Textbox("three {colour} cats", label="Prompt", lines=2, info="A {word} in braces is an axis")
            with gr.Row():
                run = gr.Button("Make the grid", variant="primary", scale=3, min_width=120, elem_id="grid-run")
                cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=90, elem_id="grid-cancel")
            with gr.Column(elem_classes="t2i-options"):
                with gr.Row():
                    across = gr.Dropdown(AXES, value="steps", allow_custom_value=True, label="Across", min_width=110)
                    across_values = gr.Textbox("5, 10, 20", label="Values across", min_width=150)
                with gr.Row():
                    down = gr.Dropdown(
                        [*AXES, "colour"], value="colour", allow_custom_value=True, label="Down", min_width=110
                    )
                    down_values = gr.Textbox("red, blue", label="Values down", min_width=150)
                with gr.Row():
                    label = gr.Textbox("cat", label="Count in every cell", placeholder="a class", min_width=120)
                    seed = gr.Textbox("", label="Seed", placeholder="random", max_lines=1, min_width=120)
                with gr.Accordion("Size, negative prompt, model", open=False):
                    size = gr.Textbox("", label="Size", placeholder="WxH; the model's own")
                    negative = gr.Textbox("", label="Negative prompt")
                    judge = gr.Dropdown(judges, value=judges[0], label="Judge that counts")
                    model = gr.Dropdown(models, value=models[0], label="Model")
        with gr.Column(scale=6, min_width=320, elem_classes="t2i-results"):
            panel = Panel(desk, "grid", "Ready: the grid will appear here.")
            picture = gr.Image(label="Grid", type="filepath", interactive=False, buttons=["download", "fullscreen"])
            measured = gr.HTML("", label="Measured in each cell")
            files = gr.File(label="Cells", file_count="multiple", interactive=False, visible=False)
    fields = {"prompt": prompt, "across": across, "across_values": across_values, "down": down}
    fields |= {"down_values": down_values, "label": label, "seed": seed, "size": size, "negative": negative}
    fields |= {"judge": judge, "model": model}

    def show(job: Job) -> list[Any]:
        paths = [str(path) for path in desk.paths(job)]
        table = view.table(job.result.get("cells", ()), "Each cell, with what was measured")
        return [paths[0] if paths else None, table, gr.File(paths[1:], visible=bool(paths))]

    panel.connect(page, run, cancel, fields, read_fields, [picture, measured, files], show, also=[prompt.submit])


def read_fields(shown: dict[str, Any]) -> dict[str, Any]:
    """From what the controls hold to the values of the kind."""
    axes = [
        f"{(shown[name] or '').strip()}={shown[f'{name}_values']}"
        for name in ("across", "down")
        if shown[name] and shown[f"{name}_values"]
    ]
    names = ("prompt", "label", "size", "negative", "judge", "model")
    return {name: shown[name] for name in names} | {"axes": axes, "seed": (shown["seed"] or "").strip() or None}
