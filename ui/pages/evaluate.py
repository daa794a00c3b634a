"""The page on which a batch is made, judged and reported, and goes on where it was stopped."""

from dataclasses import asdict
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from t2i_tools.evaluation.reports.protocol import SPLITS, read_protocol
from t2i_tools.evaluation.runs.generators import GENERATORS
from t2i_tools.images.promptfile import LABELLED, read_prompts

from .. import layout
from ..job_panel import JobPanel
from ..pages.grid import USUAL_CLIP
from ..queue import Job
from ..registry import NONE
from ..service import Service
from ..uploads import uploaded, without_folders

PROMPT_FILES = [".csv", ".jsonl"]
IDLE = "The report will appear here. What is stopped goes on with the next start of the same settings."


def evaluate_tab(service: Service, page: gr.Blocks) -> None:
    """Builds and wires the page."""
    with gr.Row():
        with layout.inputs():
            fields = _asked(service)
            run, cancel = layout.buttons("evaluate", "Start or go on", "Stop")
            with layout.options():
                fields |= _claim() | _details(service)
        with layout.results():
            panel = JobPanel(service, "evaluate", IDLE)
            latest = layout.gallery("Latest images", 6)
            report = gr.HTML("", label="Report", padding=False)
            files = layout.downloads("Report and rows")

    def show(job: Job) -> list[Any]:
        paths = service.paths(job)
        made = [str(path) for path in paths if path.suffix == ".png"]
        files = [str(path) for path in paths if path.suffix != ".png"]
        return [layout.images(made) if made else gr.skip(), _report(files), layout.files(files)]

    panel.connect(page, run, cancel, fields, partial(read_fields, service), [latest, report, files], show)


def read_fields(service: Service, shown: dict[str, Any]) -> dict[str, Any]:
    """From what the controls hold to the values of the kind. Raises InputError."""
    values = layout.stripped(shown)
    values["sizes"] = [text.strip() for text in values["sizes"].split(",") if text.strip()]
    values["prompts"] = read_rows(service, shown["prompts"]) if shown["prompts"] else None
    values["protocol"] = read_rule(service, shown["protocol"]) if shown["protocol"] else None
    return values


def read_rows(service: Service, given: Any) -> list[dict[str, Any]]:
    """The rows of an uploaded prompts file. Raises InputError."""
    path = uploaded(service, given, PROMPT_FILES)
    with without_folders(path):
        rows = [row for _, row in read_prompts(path, LABELLED, counted=True)]
    return [{name: row[name] for name in ("prompt", "label", "count", "seed") if name in row} for row in rows]


def read_rule(service: Service, given: Any) -> dict[str, Any]:
    """The protocol of an uploaded file. Raises InputError."""
    path = uploaded(service, given, [".json"])
    with without_folders(path):
        return asdict(read_protocol(path))


def _asked(service: Service) -> dict[str, gr.components.Component]:
    counts = gr.Textbox("2,3,4,5,7,10", label="Counts asked for", max_lines=1)
    number = gr.Slider(1, most := service.options.limits.items, min(24, most), step=1, label="Prompts")
    names = [(name.replace("_", " "), name) for name in GENERATORS]
    methods = gr.CheckboxGroup(names, value=["plain"], label="Methods to compare")
    return {"counts": counts, "number": number, "methods": methods}


def _claim() -> dict[str, gr.components.Component]:
    with gr.Accordion("Test split and protocol", open=False):
        split = gr.Radio(
            list(SPLITS), value="dev", label="Split", info="Tune on dev; test is for what was claimed before"
        )
        protocol = gr.File(label="Protocol: what is claimed, as json", file_types=[".json"], height=120)
    return {"split": split, "protocol": protocol}


def _details(service: Service) -> dict[str, gr.components.Component]:
    registry = service.registry
    with gr.Accordion("Own prompts, sizes, steps, judges", open=False):
        prompts = gr.File(label="Prompts: csv or jsonl with prompt, class, count", file_types=PROMPT_FILES, height=120)
        sizes = gr.Textbox("", label="Sizes", placeholder="WxH, WxH; the model's own")
        steps = layout.steps_box()
        model = layout.chooser(list(registry.models()), "Model")
        judge = layout.chooser(list(registry.judges()), "Judge that counts")
        clip = layout.chooser([USUAL_CLIP, *registry.clips(), NONE], "CLIP that scores")
        name = gr.Textbox("", label="Name", placeholder="drawn from the settings")
    fields = {"prompts": prompts, "sizes": sizes, "steps": steps, "model": model}
    return fields | {"judge": judge, "clip": clip, "name": name}


def _report(paths: list[str]) -> str:
    """The report in a frame that may run its own scripts and reach nothing of this page."""
    html = next((path for path in paths if path.endswith("report.html")), None)
    if html is None:
        return ""
    with open(html, encoding="utf-8") as file:
        text = escape(file.read(), quote=True)
    return f"<iframe class='t2i-report' title='Report' sandbox='allow-scripts' srcdoc=\"{text}\"></iframe>"
