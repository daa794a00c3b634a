"""The page with all jobs of its owner: what waits, what ended how, and the images."""

import time
from typing import Any

import gradio as gr

from t2i_tools.errors import InputError
from t2i_tools.images.metadata import read_settings

from .. import layout, render
from ..identity import page_owner
from ..job_panel import QUIET
from ..queue import Job
from ..service import Service

JOBS, IMAGES = 30, 60
NOTHING = render.empty("What you start on the other pages will be listed here.")


def history_tab(service: Service, tab: gr.Tab) -> None:
    """Builds and wires the page."""
    with gr.Row():
        refresh = gr.Button("Refresh", size="sm", min_width=90, scale=0)
        stop = gr.Button("Cancel all of mine", size="sm", min_width=160, scale=0)
    table = gr.HTML(NOTHING, label="Jobs", padding=False)
    gallery = layout.gallery("My images", 6)
    settings = gr.JSON(label="Settings of the chosen image", visible=False)
    outputs = [table, gallery]

    def look(request: gr.Request) -> list[Any]:
        jobs = service.jobs.of(page_owner(request), most=JOBS)
        text = render.table([_row(service, job) for job in jobs], "My jobs, the newest first") or NOTHING
        return [text, layout.images(_images(service, jobs))]

    def cancel_all(request: gr.Request) -> list[Any]:
        service.cancel_all(page_owner(request))
        return look(request)

    def describe(request: gr.Request, chosen: gr.SelectData) -> Any:
        images = _images(service, service.jobs.of(page_owner(request), most=JOBS))
        try:
            return gr.JSON(read_settings(images[chosen.index]), visible=True)
        except (IndexError, InputError):
            return gr.JSON(None, visible=False)

    for event in (tab.select, refresh.click):
        event(look, None, outputs, **QUIET)
    stop.click(cancel_all, None, outputs, **QUIET)
    gallery.select(describe, None, settings, **QUIET)


def _images(service: Service, jobs: list[Job]) -> list[str]:
    paths = [path for job in jobs if job.kind in ("generate", "count") for path in service.paths(job)]
    return [str(path) for path in paths[:IMAGES]]


def _row(service: Service, job: Job) -> dict[str, Any]:
    progress = service.progress(job)
    state = (
        progress.note
        if progress
        else f"{len(service.jobs.before(job))} before it"
        if job.state == "queued"
        else job.state
    )
    about = str(job.asked.get("prompt") or job.result.get("name") or "")
    return {
        "number": job.number,
        "kind": job.kind,
        "about": about if len(about) <= 60 else about[:57] + "...",
        "state": f"{state}: {job.error}" if job.error else state,
        "asked": time.strftime("%d %b %H:%M", time.localtime(job.created)),
    }
