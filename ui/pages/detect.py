"""The page on which a detector looks at images that a user brings."""

from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import gradio as gr

from t2i_tools.bundled.scenes import LABELS

from .. import layout, render
from ..errors import at_field
from ..job_panel import JobPanel
from ..jobs.detect import detectors
from ..jobs.generate import start_path
from ..queue import Job
from ..service import Service
from ..stage import Figure, stage_html
from ..uploads import IMAGE_SUFFIXES, keep_start

KNOWN = f"The bundled detectors know {', '.join(LABELS)}"


def detect_tab(service: Service, page: gr.Blocks) -> JobPanel:
    """Builds and wires the page."""
    with gr.Row():
        with layout.inputs():
            images = gr.File(label="Images", file_count="multiple", file_types=list(IMAGE_SUFFIXES), height=180)
            run, cancel = layout.buttons("detect", "Count objects")
            with layout.options():
                label = gr.Dropdown(
                    ["", *LABELS],
                    value="",
                    allow_custom_value=True,
                    label="Only this class",
                    info=f"{KNOWN}; empty stands for all",
                )
                detector = layout.chooser(list(detectors(service.registry)), "Detector")
        with layout.results():
            panel = JobPanel(service, "detect", "Drop images at the left; what is counted in each will appear here.")
            stage = gr.HTML("", elem_id="detect-stage", label="Images", padding=False)
            table = gr.HTML("", label="Counts", padding=False)
            panel.place_actions()
    fields = {"images": images, "label": label, "detector": detector}

    def read(shown: dict[str, Any]) -> dict[str, Any]:
        with at_field("images"):
            kept = [keep_start(service, one) for one in shown["images"] or ()]
        return layout.stripped(shown) | {"images": kept}

    def write(owner: str, values: Mapping[str, Any]) -> dict[str, Any]:
        paths = [start_path(service.output, name) for name in values.get("images") or ()]
        there = [str(path) for path in paths if path.exists()]
        return layout.written(service, fields, values) | {"images": there or None}

    def show(job: Job) -> list[Any]:
        progress = service.progress(job)
        objects = [event["objects"] for event in progress.events] if progress else job.result.get("objects", ())
        rows = [(path, found or ()) for path, found in zip_longest(service.paths(job), objects) if path]
        return [stage_html([_figure(*row) for row in rows]), render.table(map(_row, rows), "Counted in each image")]

    panel.connect(page, run, cancel, fields, read, [stage, table], show, write)
    return panel


def _figure(path: Path, objects: Any) -> Figure:
    return Figure(path, "" if objects else "nothing found", objects)


def _row(row: tuple[Path, Any]) -> dict[str, Any]:
    path, objects = row
    counted = ", ".join(f"{one['label']}: {one['counted']}" for one in objects)
    return {"image": path.stem.lstrip("0"), "counted": counted or "nothing"}
