"""The page and the server."""

import logging
import os
from typing import Any

from t2i_tools.ui.options import AppOptions

TITLE = "t2i-tools"


def launch(options: AppOptions | None = None, *, block: bool = True) -> Any:
    """Serve the app until Ctrl-C; with `block=False`, hand back (page, desk) of the running server.

    Raises InputError when the output folder or the port is taken.
    """
    options = options or AppOptions()
    files = str(options.output.expanduser().resolve() / "files")
    # Gradio reads these while it is imported: what it keeps and serves lies in the output folder, and it calls nobody.
    os.environ |= {"GRADIO_TEMP_DIR": files, "GRADIO_ANALYTICS_ENABLED": "False"}
    from t2i_tools.ui.desk import Desk
    from t2i_tools.ui.server import serve

    logging.basicConfig(format="%(message)s")
    desk = Desk(options)
    try:
        page = serve(build(desk), desk)
        desk.worker.start()
        if not block:
            return page, desk
        page.block_thread()
    finally:
        if block:
            desk.close()
    return None


def build(desk: Any) -> Any:
    """The page, not served yet."""
    import gradio as gr

    from t2i_tools.ui.api import add_endpoints
    from t2i_tools.ui.tabs.count import count_tab
    from t2i_tools.ui.tabs.evaluate import evaluate_tab
    from t2i_tools.ui.tabs.generate import generate_tab
    from t2i_tools.ui.tabs.grid import grid_tab
    from t2i_tools.ui.tabs.history import history_tab
    from t2i_tools.ui.tabs.probe import probe_tab

    with gr.Blocks(title=TITLE, fill_width=True) as page:
        gr.HTML("<h1>t2i-tools</h1><p>This size, this many, all of the prompt.</p>", elem_id="title", padding=False)
        tabs = {"Generate": generate_tab, "Count": count_tab, "Probe": probe_tab}
        for name, fill in (tabs | {"Grid": grid_tab, "Evaluate": evaluate_tab}).items():
            with gr.Tab(name, id=name.lower()):
                fill(desk, page)
        with gr.Tab("My jobs", id="history") as tab:
            history_tab(desk, tab)
        add_endpoints(desk)
    return page
