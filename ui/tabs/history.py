"""The page with all jobs of its owner: what waits, what ended how, and the images."""

import time
from typing import Any

import gradio as gr

from t2i_tools.errors import InputError
from t2i_tools.imagefile import read_settings
from t2i_tools.ui import view
from t2i_tools.ui.desk import Desk
from t2i_tools.ui.jobs import Job
from t2i_tools.ui.owner import page_owner

JOBS, IMAGES = 30, 60


def history_tab(desk: Desk, tab: gr.Tab) -> None:
    """Builds and wires the page."""
    with gr.Row():
        refresh = gr.Button("Refresh", size="sm", min_width=90, scale=0)
        stop = gr.Button("Cancel all of mine", size="sm", min_width=160, scale=0)
    table = gr.HTML("<p class='t2i-hint'>No jobs yet.</p>", label="Jobs")
    gallery = gr.Gallery(
        label="My images", columns=6, fit_columns=False, object_fit="contain", height="auto", buttons=["download"]
    )
    settings = gr.JSON(label="Settings of the chosen image", visible=False)
    outputs = [table, gallery]

    def look(request: gr.Request) -> list[Any]:
        jobs = desk.jobs.of(page_owner(request), most=JOBS)
        rows = [_row(desk, job) for job in jobs]
        text = view.table(rows, "My jobs, the newest first") or "<p class='t2i-hint'>No jobs yet.</p>"
        images = [path for job in jobs if job.kind == "generate" for path in desk.paths(job)]
        return [text, [str(path) for path in images[:IMAGES]]]

    def cancel_all(request: gr.Request) -> list[Any]:
        desk.cancel_all(page_owner(request))
        return look(request)

    def describe(request: gr.Request, chosen: gr.SelectData) -> Any:
        images = look(request)[1]
        try:
            return gr.JSON(read_settings(images[chosen.index]), visible=True)
        except (IndexError, InputError):
            return gr.JSON(None, visible=False)

    quiet = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
    for event in (tab.select, refresh.click):
        event(look, None, outputs, **quiet)
    stop.click(cancel_all, None, outputs, **quiet)
    gallery.select(describe, None, settings, **quiet)


def _row(desk: Desk, job: Job) -> dict[str, Any]:
    live = desk.live(job)
    state = live.note if live else f"{desk.jobs.ahead(job)} before it" if job.state == "queued" else job.state
    about = str(job.asked.get("prompt") or job.result.get("name") or "")
    return {
        "number": job.number,
        "kind": job.kind,
        "about": about if len(about) <= 60 else about[:57] + "...",
        "state": f"{state}: {job.error}" if job.error else state,
        "asked": time.strftime("%d %b %H:%M", time.localtime(job.created)),
    }
