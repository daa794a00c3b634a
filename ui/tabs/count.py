"""The page on which images are searched that hold an exact number of objects."""

from typing import Any

import gradio as gr

from t2i_tools.default.scenes import LABELS
from t2i_tools.ui import view
from t2i_tools.ui.desk import Desk
from t2i_tools.ui.jobs import Job
from t2i_tools.ui.panel import Panel
from t2i_tools.ui.strip import chart_values, charts, strip_html

METHODS = {
    "best of both": "token+best_of",
    "count token": "token",
    "other seeds (best of N)": "best_of",
    "plain": "plain",
}


def count_tab(desk: Desk, page: gr.Blocks) -> None:
    """Builds and wires the page."""
    limits = desk.options.limits
    models, detectors, judges = (list(one()) for one in (desk.shelf.models, desk.shelf.detectors, desk.shelf.judges))
    with gr.Row():
        with gr.Column(scale=5, min_width=320, elem_classes="t2i-inputs"):
            prompt = gr.Textbox(
                "a photo of {count} cats on a green background",
                label="Prompt",
                lines=2,
                info="{count} stands for the number",
                elem_id="count-prompt",
            )
            with gr.Row():
                number = gr.Slider(1, 20, 5, step=1, label="How many", min_width=140)
                label = gr.Dropdown(list(LABELS), value="cat", allow_custom_value=True, label="Of what", min_width=110)
            with gr.Row():
                run = gr.Button("Search", variant="primary", scale=3, min_width=120, elem_id="count-run")
                cancel = gr.Button("Stop, keep the best", interactive=False, scale=2, min_width=140)
            with gr.Column(elem_classes="t2i-options"):
                method = gr.Radio(list(METHODS), value="best of both", label="Method")
                compare = gr.Checkbox(True, label="Beside the plain image and the best of other seeds")
                with gr.Row():
                    images = gr.Slider(1, limits.images, 1, step=1, label="Images", min_width=140)
                    until = gr.Checkbox(False, label="Until so many are exact", min_width=140)
                budget = gr.Slider(
                    1, limits.budget, 20, step=1, label="Budget of an image", info="In plain images' worth of computing"
                )
                with gr.Accordion("Size, steps, seed, model, judge", open=False):
                    with gr.Row():
                        size = gr.Textbox("", label="Size", placeholder="WxH; the model's own", min_width=110)
                        seed = gr.Textbox("", label="Seed", placeholder="random", max_lines=1, min_width=110)
                    steps = gr.Slider(0, limits.steps, 0, step=1, label="Steps (0: usual)")
                    model = gr.Dropdown(models, value=models[0], label="Model")
                    with gr.Row():
                        detector = gr.Dropdown(detectors, value=detectors[0], label="Detector that steers")
                        judge = gr.Dropdown(judges, value=judges[0], label="Judge that only counts")
        with gr.Column(scale=6, min_width=320, elem_classes="t2i-results"):
            panel = Panel(desk, "count", "Ready: the trials of the search will appear here.")
            strip = gr.HTML("", label="Trials", padding=False)
            gallery = gr.Gallery(
                label="Best of each method", columns=3, fit_columns=False, height="auto", object_fit="contain"
            )
            rows = gr.HTML("", label="Results", padding=False)
            with gr.Row():
                counted, loss = charts()
            tokens = gr.File(label="Count tokens", file_count="multiple", interactive=False, visible=False)
    fields = {"prompt": prompt, "n": number, "label": label, "method": method, "compare": compare, "number": images}
    fields |= {"until_exact": until, "budget": budget, "size": size, "seed": seed, "steps": steps, "model": model}
    fields |= {"detector": detector, "judge": judge}

    def show(job: Job) -> list[Any]:
        live = desk.live(job)
        events = live.strip if live else job.result.get("strip", ())
        found = job.result.get("images", ())
        files = [str(path) for row in found if (path := desk.shelf.tokens().get(row["token"] or ""))]
        pictures = [
            (str(path), f"{row['method']}: judge sees {row['judged']}")
            for path, row in zip(desk.paths(job), found, strict=False)
        ] or [str(path) for path in desk.paths(job)]
        shown = [
            {name: row[name] for name in ("method", "seed", "counted", "judged", "exact", "steps")} for row in found
        ]
        table = view.table(shown, "The best of each search: seen by the detector that steered, and by the judge")
        return [strip_html(events), pictures, table, *chart_values(events), gr.File(files, visible=bool(files))]

    results = [strip, gallery, rows, counted, loss, tokens]
    panel.connect(page, run, cancel, fields, read_fields, results, show, also=[prompt.submit])


def read_fields(shown: dict[str, Any]) -> dict[str, Any]:
    """From what the controls hold to the values of the kind."""
    seed = (shown["seed"] or "").strip() or None
    return shown | {"method": METHODS[shown["method"]], "steps": shown["steps"] or None, "seed": seed}
