"""The page with all jobs of its owner: what waits and runs, live, and how the others ended."""

import gradio as gr

from ..identity import owner_of
from ..job_panel import QUIET, Updates
from ..page_actions import History
from ..service import Service


def history_tab(service: Service, tab: gr.Tab, history: History) -> None:
    """Builds and wires the page."""
    with gr.Row():
        stop = gr.Button("Cancel all of mine", size="sm", min_width=160, scale=0)
    history.open.render()
    history.ended.render()

    def look(request: gr.Request) -> Updates:
        return history.look(owner_of(request))

    def cancel_all(request: gr.Request) -> Updates:
        service.cancel_all(owner_of(request))
        return history.look(owner_of(request))

    tab.select(look, None, history.outputs, **QUIET)
    stop.click(cancel_all, None, history.outputs, **QUIET)
