"""The page and the server."""

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from t2i_tools.errors import T2IError

from .options import AppOptions

log = logging.getLogger("t2i_tools.ui")
TITLE = "t2i-tools"


def launch(options: AppOptions | None = None, *, block: bool = True) -> Any:
    """Serve the app until Ctrl-C; with `block=False`, hand back (page, service) of the running server.

    Raises InputError when the output folder or the port is taken, and what the opening of the first model raises.
    """
    options = options or AppOptions()
    files = str(options.output.expanduser().resolve() / "files")
    # Gradio reads these while it is imported: what it keeps and serves lies in the output folder, and it calls nobody.
    os.environ |= {"GRADIO_TEMP_DIR": files, "GRADIO_ANALYTICS_ENABLED": "False"}
    os.environ.setdefault("MPLBACKEND", "agg")  # Gradio's own choice, which it would import all of pyplot to make
    _let_threads_sleep()
    logging.basicConfig(format="%(message)s")
    with _gc_paused():
        from .server import serve
        from .service import Service

        service = Service(options)
    try:
        with _gc_paused():
            service.registry.check_first()
            page = serve(build(service), service)
            service.worker.start()
            if not block:
                return page, service
            service.worker.wait_for_model()
            gc.freeze()  # nothing of what is open now is garbage: let no collection during a job scan it
        page.block_thread()
    finally:
        if block:
            service.close()
    return None


def _let_threads_sleep() -> None:
    """Have torch's threads sleep while they wait for each other, unless the user says how they are to wait.

    By default they spin for milliseconds, which takes the core from the thread that they wait for where a browser runs
    on the same machine. It changes no number, and is read when torch is imported.
    """
    if not any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


@contextmanager
def _gc_paused() -> Iterator[None]:
    """Pause garbage collection: scanning everything that imports leave in memory takes a tenth of the start-up time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def build(service: Any) -> Any:
    """The page, not served yet."""
    import gradio as gr

    from .api import add_endpoints
    from .job_panel import LATEST
    from .page_actions import History, PageActions
    from .pages.count import count_tab
    from .pages.detect import detect_tab
    from .pages.evaluate import evaluate_tab
    from .pages.generate import generate_tab
    from .pages.grid import grid_tab
    from .pages.history import history_tab
    from .pages.probe import probe_tab

    with page_class()(title=TITLE, fill_width=True) as page:
        title = gr.HTML(
            "<h1>t2i-tools</h1><p>This size, this many, all of the prompt.</p>", elem_id="title", padding=False
        )
        history, panels = History(service), {}
        kinds = {"Generate": generate_tab, "Count": count_tab, "Probe": probe_tab, "Grid": grid_tab}
        kinds |= {"Evaluate": evaluate_tab, "Detect": detect_tab}
        with gr.Row(elem_classes="t2i-page"):
            with gr.Column(scale=1, min_width=320), gr.Tabs():
                for name, fill in kinds.items():
                    with gr.Tab(name, id=name.lower()) as tab:
                        panel = panels[name.lower()] = fill(service, page)
                    if panel.forecast:  # by what the machine has learned on other tabs
                        tab.select(*panel.forecast, **LATEST)
                with gr.Tab("My jobs", id="history") as tab:
                    history_tab(service, tab, history)
            with gr.Column(scale=0, min_width=180, elem_classes="t2i-beside"):
                history.strip.render()
        history.timer.render()
        for panel in panels.values():
            panel.kept.state.render()
        history.connect(page, [change for panel in panels.values() for change in panel.changes])
        PageActions(service, panels, history).connect(page)
        add_endpoints(service)
        _show_no_progress(page, title)
    return page


def _show_no_progress(page: Any, place: Any) -> None:
    """Name one component as the place at which Gradio would show the progress of the page's quiet events.

    By default that is each output, of which a page has hundreds, and at every event Gradio tells each of those that it
    has met how far the event is: on this page a quarter of a core for as long as a job runs.
    """
    for event in page.fns.values():
        if event.show_progress == "hidden":
            event.show_progress_on = [place]


def page_class() -> Any:
    """Gradio's page, on which no error goes out without a word: what the user can mend in one line, else its type."""
    import gradio as gr

    from .errors import in_words
    from .sessions import Sweeper

    sweeper = Sweeper()

    class Page(gr.Blocks):
        async def process_api(self, *args: Any, **named: Any) -> Any:
            sweeper.sweep(self)
            try:
                return await super().process_api(*args, **named)
            except gr.Error:
                raise
            except T2IError as error:
                raise gr.Error(in_words(error), print_exception=False) from None
            except Exception as error:
                log.warning("unexpected %s", type(error).__name__, exc_info=error)
                raise gr.Error(f"unexpected: {type(error).__name__}", print_exception=False) from None

    return Page
