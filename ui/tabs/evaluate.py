"""The page on which a batch is made, judged and reported, and goes on where it was stopped."""

from functools import partial
from html import escape
from typing import Any

import gradio as gr

from t2i_tools.errors import InputError
from t2i_tools.evaluation.methods import METHODS
from t2i_tools.promptfile import LABELLED, read_prompts
from t2i_tools.ui.desk import Desk
from t2i_tools.ui.jobs import Job
from t2i_tools.ui.panel import Panel
from t2i_tools.ui.uploads import uploaded

PROMPT_FILES = [".csv", ".jsonl"]


def evaluate_tab(desk: Desk, page: gr.Blocks) -> None:
    """Builds and wires the page."""
    models, judges = list(desk.shelf.models()), list(desk.shelf.judges())
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            with gr.Row():
                run = gr.Button("Start or go on", variant="primary", scale=3, min_width=120, elem_id="evaluate-run")
                cancel = gr.Button("Stop", interactive=False, scale=1, min_width=90, elem_id="evaluate-cancel")
            counts = gr.Textbox("2,3,4,5,7,10", label="Counts asked for")
            number = gr.Slider(1, 192, 24, step=1, label="Prompts")
            methods = gr.CheckboxGroup(list(METHODS), value=["plain"], label="Methods to compare")
            with gr.Accordion("Own prompts, sizes, steps, judge", open=False):
                prompts = gr.File(
                    label="Prompts: csv or jsonl with prompt, class, count", file_types=PROMPT_FILES, height=120
                )
                sizes = gr.Textbox("", label="Sizes", placeholder="WxH, WxH; the model's own")
                steps = gr.Slider(0, desk.options.limits.steps, 0, step=1, label="Steps (0: usual)")
                judge = gr.Dropdown(judges, value=judges[0], label="Judge that counts")
                model = gr.Dropdown(models, value=models[0], label="Model")
                name = gr.Textbox("", label="Name", placeholder="drawn from the settings")
        with gr.Column(scale=7, min_width=320):
            panel = Panel(
                desk, "evaluate", "Ready. What is stopped here goes on with the next start of the same settings."
            )
            latest = gr.Gallery(label="Latest images", columns=6, fit_columns=False, height=150, object_fit="contain")
            report = gr.HTML("", label="Report")
            files = gr.File(label="Report and rows", file_count="multiple", interactive=False, visible=False)
    fields = {"counts": counts, "number": number, "methods": methods, "prompts": prompts, "sizes": sizes}
    fields |= {"steps": steps, "judge": judge, "model": model, "name": name}

    def show(job: Job) -> list[Any]:
        paths = desk.paths(job)
        pictures = [str(path) for path in paths if path.suffix == ".png"]
        told = [str(path) for path in paths if path.suffix != ".png"]
        return [pictures or gr.skip(), _report(told), gr.File(told, visible=bool(told))]

    panel.connect(page, run, cancel, fields, partial(read_fields, desk), [latest, report, files], show)


def read_fields(desk: Desk, shown: dict[str, Any]) -> dict[str, Any]:
    """From what the controls hold to the values of the kind."""
    values = {name: shown[name] for name in ("counts", "number", "methods", "judge", "model", "name")}
    values["steps"] = shown["steps"] or None
    values["sizes"] = [text.strip() for text in (shown["sizes"] or "").split(",") if text.strip()]
    if shown["prompts"]:
        values["prompts"] = read_rows(desk, shown["prompts"])
    return values


def read_rows(desk: Desk, given: Any) -> list[dict[str, Any]]:
    """The rows of an uploaded prompts file. Raises InputError."""
    path = uploaded(desk, given, PROMPT_FILES)
    try:
        rows = [row for _, row in read_prompts(path, LABELLED)]
    except InputError as error:
        raise InputError(str(error).replace(str(path), path.name)) from error
    return [{name: row[name] for name in ("prompt", "label", "count", "seed") if name in row} for row in rows]


def _report(paths: list[str]) -> str:
    """The report in a frame that may run its own scripts and reach nothing of this page."""
    html = next((path for path in paths if path.endswith("report.html")), None)
    if html is None:
        return ""
    with open(html, encoding="utf-8") as file:
        text = escape(file.read(), quote=True)
    return f"<iframe class='t2i-report' title='Report' sandbox='allow-scripts' srcdoc=\"{text}\"></iframe>"
