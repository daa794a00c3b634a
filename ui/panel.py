"""What every tab has in common: a status line, a button that cancels, and results that appear as they are made."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from t2i_tools.errors import T2IError
from t2i_tools.ui import view
from t2i_tools.ui.desk import Desk
from t2i_tools.ui.jobs import Job
from t2i_tools.ui.owner import page_owner

TICK = 0.4
QUIET = {"show_progress": "hidden", "api_visibility": "private", "queue": False}  # of an event of the page's own


class Panel:
    """The status and the cancel button of one tab; it shows the jobs of one kind and of the page's owner.

    Create it where the status is to stand, then `connect` it.
    """

    def __init__(self, desk: Desk, kind: str, idle: str):
        self.desk, self.kind, self.idle = desk, kind, idle
        self.status = gr.HTML(view.status(desk, [], idle), elem_id=f"{kind}-status", padding=False)
        self.timer = gr.Timer(TICK, active=False)
        self.shown = gr.State("")

    def connect(
        self,
        page: gr.Blocks,
        run: gr.Button,
        cancel: gr.Button,
        fields: dict[str, gr.components.Component],
        read: Callable[[dict[str, Any]], dict[str, Any]],
        results: Sequence[gr.components.Component],
        show: Callable[[Job], Sequence[Any]],
        also: Sequence[Callable[..., Any]] = (),
    ) -> None:
        """Wire it. read: from the fields' values to those of the kind. show: a job's values for `results`.

        also: further events that start a job, such as `textbox.submit`.
        """
        outputs = [self.status, cancel, self.timer, self.shown, *results]

        # Gradio passes the request to the parameter that is annotated with it.
        def look(request: gr.Request, shown: str) -> tuple[Any, ...]:
            jobs = self.desk.jobs.of(page_owner(request), self.kind, 20)
            job, waiting = view.current(jobs), any(job.open for job in jobs)
            stamp = self._stamp(job) if job else ""
            fresh = show(job) if job and stamp != shown else [gr.skip() for _ in results]
            status = view.status(self.desk, jobs, self.idle)
            return status, gr.Button(interactive=waiting), gr.Timer(active=waiting), stamp, *fresh

        def start(request: gr.Request, shown: str, *values: Any) -> tuple[Any, ...]:
            try:
                given = read(dict(zip(fields, values, strict=True)))
                self.desk.submit(page_owner(request), self.kind, given)
            except T2IError as error:
                return view.complaint(error), *(gr.skip() for _ in outputs[1:])
            return look(request, shown)

        def stop(request: gr.Request, shown: str) -> tuple[Any, ...]:
            self.desk.cancel_all(page_owner(request), self.kind)
            return look(request, shown)

        for event in (run.click, *also):
            event(start, [self.shown, *fields.values()], outputs, **QUIET)
        cancel.click(stop, self.shown, outputs, **QUIET)
        self.timer.tick(look, self.shown, outputs, **QUIET)
        page.load(look, self.shown, outputs, **QUIET)

    def _stamp(self, job: Job) -> str:
        """Changes when there is something new to show."""
        paths, live = self.desk.paths(job), self.desk.live(job)
        return f"{job.id} {job.state} {len(paths)} {paths[-1:]} {len(live.events) if live else ''}"
