"""What every tab has in common: a status line, a button that cancels, and results that appear as they are made."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from t2i_tools.errors import InputError, T2IError

from . import render
from .errors import FieldError
from .identity import owner_of, source_of
from .job_list import actions_html
from .kept_form import KeptForm, Known
from .queue import Job
from .service import Service

TICK = 0.4  # seconds between two looks at a job
LATER, LATER_TICK = 10.0, 1.0  # seconds after which a job is looked at less often, and how often
QUIET = {"show_progress": "hidden", "api_visibility": "private", "queue": False}  # of an event of the page's own
LATEST = {**QUIET, "trigger_mode": "always_last"}  # of one that follows what is being typed
ASKED = {**QUIET, "queue": True}  # of a user's: Gradio shows what goes wrong in its queue, and nothing outside of it
NO_ADDRESS = "() => t2i.address('')"
Updates = dict[Any, Any]


class JobPanel:
    """The status and the cancel button of one tab; it shows the jobs of one kind and of the page's owner.

    Create it where the status is to stand, `place_actions` below the results, then `connect` it. It shows the latest
    job, or the one of `opened`, whose id a user has chosen.
    """

    def __init__(self, service: Service, kind: str, idle: str):
        self.service, self.kind, self.idle = service, kind, idle
        self.status = gr.HTML(render.status(service, [], idle), elem_id=f"{kind}-status", padding=False)
        self.timer = gr.Timer(TICK, active=False)
        self.shown, self.opened = gr.State(""), gr.State("")
        self.fields: dict[str, gr.components.Component] = {}
        self.results: list[gr.components.Component] = []
        self.changes: list[Any] = []  # events after which the owner's list of jobs is another
        # What a dropped image changes: by whom and which file -> next values, and of which components.
        self.arrive: Callable[[str, Any], Updates] = lambda owner, file: {}
        self.arrivals: list[Any] = []
        self.forecast: tuple[Any, ...] = ()  # the event that estimates a job's time: function, inputs, outputs
        self.restored: Any = None  # the event that fills in what the browser has kept

    def place_actions(self) -> None:
        """Put what can be done with the job here."""
        self.actions = gr.HTML("", elem_id=f"{self.kind}-actions", padding=False)

    def connect(
        self,
        page: gr.Blocks,
        run: gr.Button,
        cancel: gr.Button,
        fields: dict[str, gr.components.Component],
        read: Callable[[dict[str, Any]], dict[str, Any]],
        results: Sequence[gr.components.Component],
        show: Callable[[Job], Sequence[Any]],
        write: Callable[[str, Mapping[str, Any]], dict[str, Any]],
        also: Sequence[Callable[..., Any]] = (),
        places: Mapping[str, str] | None = None,
        known: Known | None = None,
    ) -> None:
        """Wire it. read: from the fields' values to those of the kind. write: the inverse, for an
        owner. show: a job for `results`.

        also: further events that start a job, such as `textbox.submit`. places: the kind's value -> the field that it
        is read from, where the two have other names. known: as `KeptForm` takes it.
        """
        self.fields, self.results, self.cancel = fields, list(results), cancel
        self.read, self.write, self.show = read, write, show
        for name, field in fields.items():
            field.elem_id = field.elem_id or f"{self.kind}-{name}"

        # Gradio passes the request to the parameter that is annotated with it.
        def look(request: gr.Request, shown: str, opened: str) -> Updates:
            return self.look(owner_of(request), shown, opened)

        def start(request: gr.Request, shown: str, *values: Any) -> Updates:
            try:
                fields_read = read(dict(zip(fields, values, strict=True)))
                self.service.submit(owner_of(request), self.kind, fields_read, source_of(request))
            except T2IError as error:
                return {self.status: complain(error)}
            return self.look(owner_of(request), shown, "")

        def complain(error: T2IError) -> str:
            name = error.field if isinstance(error, FieldError) else ""
            field = fields.get((places or {}).get(name, name))
            if field is None:
                return render.complaint(error)
            text = str(error)
            words = f"{field.label}: {text.removeprefix(f'{name}: ')}" if text.startswith(f"{name}: ") else text
            return render.complaint(words, field.elem_id)

        def stop(request: gr.Request, shown: str, opened: str) -> Updates:
            owner = owner_of(request)
            if opened:
                self.service.cancel(self.service.job_of(owner, opened))
            else:
                self.service.cancel_all(owner, self.kind)
            return self.look(owner, shown, opened)

        outputs, seen = self.outputs, [self.shown, self.opened]
        for event in (run.click, *also):
            started = event(start, [self.shown, *fields.values()], outputs, **ASKED, trigger_mode="multiple")
            started.then(None, None, None, js=NO_ADDRESS, **QUIET)
            self.changes.append(started)
        self.changes.append(cancel.click(stop, seen, outputs, **ASKED))
        self.timer.tick(look, seen, outputs, **QUIET)
        page.load(look, seen, outputs, **QUIET)
        self.kept = KeptForm(self.service, self.kind, fields, known or {})
        self.restored = self.kept.connect(page)

    @property
    def outputs(self) -> list[Any]:
        """What `look` may change."""
        return [self.status, self.cancel, self.timer, self.shown, self.opened, self.actions, *self.results]

    def look(self, owner: str, shown: str, opened: str) -> Updates:
        """What the tab shows next. shown: the stamp of what it shows. opened: id of the job that was chosen, or ""."""
        jobs = self.service.jobs.of(owner, self.kind, 20)
        if opened:
            try:
                jobs = [self.service.job_of(owner, opened)]
            except InputError:  # it was deleted
                opened = ""
        job, waiting = render.current(jobs), any(job.open for job in jobs)
        progress = self.service.progress(job) if job else None
        tick = LATER_TICK if progress and time.monotonic() - progress.since > LATER else TICK
        stamp = f"{self._stamp(job)} {waiting} {tick} {opened}" if job else ""
        updates: Updates = {self.status: render.status(self.service, jobs, self.idle)}
        if job and stamp == shown:  # most ticks: what else they would write, the browser pays for, changed or not
            return updates
        updates |= {
            self.cancel: gr.Button(interactive=waiting),
            self.timer: gr.Timer(tick, active=waiting),
            self.shown: stamp,
            self.opened: opened,
        }
        if stamp != shown:
            updates[self.actions] = actions_html(job, bool(opened))
            ended_without = opened and job and not job.open and not self.service.paths(job)
            values = self.show(job) if job and not ended_without else map(_empty, self.results)
            updates |= dict(zip(self.results, values, strict=True))
        return updates

    def _stamp(self, job: Job) -> str:
        """Changes when there is something new to show."""
        paths, progress = self.service.paths(job), self.service.progress(job)
        news = (len(progress.events), bool(progress.preview)) if progress else ""
        return f"{job.id} {job.state} {len(paths)} {paths[-1:]} {news}"


def _empty(result: gr.components.Component) -> Any:
    """The next value of a result of which there is nothing, such as after the last job was deleted."""
    return "" if isinstance(result, gr.HTML) else type(result)(visible=False)
