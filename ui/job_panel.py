"""What every tab has in common: a status line, a button that cancels, and results that appear as they are made."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from t2i_tools.errors import T2IError

from . import render
from .errors import FieldError
from .identity import page_owner
from .queue import Job
from .service import Service

TICK = 0.4
QUIET = {"show_progress": "hidden", "api_visibility": "private", "queue": False}  # of an event of the page's own
LATEST = {**QUIET, "trigger_mode": "always_last"}  # of one that follows what is being typed
ASKED = {**QUIET, "queue": True}  # of a user's: Gradio shows what goes wrong in its queue, and nothing outside of it


class JobPanel:
    """The status and the cancel button of one tab; it shows the jobs of one kind and of the page's owner.

    Create it where the status is to stand, then `connect` it.
    """

    def __init__(self, service: Service, kind: str, idle: str):
        self.service, self.kind, self.idle = service, kind, idle
        self.status = gr.HTML(render.status(service, [], idle), elem_id=f"{kind}-status", padding=False)
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
        places: Mapping[str, str] | None = None,
    ) -> None:
        """Wire it. read: from the fields' values to those of the kind. show: a job's values for `results`.

        also: further events that start a job, such as `textbox.submit`. places: the kind's value -> the field that it
        is read from, where the two have other names.
        """
        for name, field in fields.items():
            field.elem_id = field.elem_id or f"{self.kind}-{name}"
        outputs = [self.status, cancel, self.timer, self.shown, *results]

        # Gradio passes the request to the parameter that is annotated with it.
        def look(request: gr.Request, shown: str) -> tuple[Any, ...]:
            jobs = self.service.jobs.of(page_owner(request), self.kind, 20)
            job, waiting = render.current(jobs), any(job.open for job in jobs)
            stamp = self._stamp(job) if job else ""
            fresh = show(job) if job and stamp != shown else [gr.skip() for _ in results]
            status = render.status(self.service, jobs, self.idle)
            return status, gr.Button(interactive=waiting), gr.Timer(active=waiting), stamp, *fresh

        def start(request: gr.Request, shown: str, *values: Any) -> tuple[Any, ...]:
            try:
                given = read(dict(zip(fields, values, strict=True)))
                self.service.submit(page_owner(request), self.kind, given)
            except T2IError as error:
                return complain(error), *(gr.skip() for _ in outputs[1:])
            return look(request, shown)

        def complain(error: T2IError) -> str:
            name = error.field if isinstance(error, FieldError) else ""
            field = fields.get((places or {}).get(name, name))
            if field is None:
                return render.complaint(error)
            text = str(error)
            words = f"{field.label}: {text.removeprefix(f'{name}: ')}" if text.startswith(f"{name}: ") else text
            return render.complaint(words, field.elem_id)

        def stop(request: gr.Request, shown: str) -> tuple[Any, ...]:
            self.service.cancel_all(page_owner(request), self.kind)
            return look(request, shown)

        for event in (run.click, *also):
            event(start, [self.shown, *fields.values()], outputs, **ASKED, trigger_mode="multiple")
        cancel.click(stop, self.shown, outputs, **ASKED)
        self.timer.tick(look, self.shown, outputs, **QUIET)
        page.load(look, self.shown, outputs, **QUIET)

    def _stamp(self, job: Job) -> str:
        """Changes when there is something new to show."""
        paths, progress = self.service.paths(job), self.service.progress(job)
        news = (len(progress.events), bool(progress.preview)) if progress else ""
        return f"{job.id} {job.state} {len(paths)} {paths[-1:]} {news}"
