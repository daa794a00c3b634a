"""What every tab has in common: a status line, a button that cancels, and results that appear as they are made."""

import secrets
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import gradio as gr

from t2i_tools.errors import T2IError
from t2i_tools.ui import view
from t2i_tools.ui.desk import Desk
from t2i_tools.ui.jobs import Job

TICK = 0.4


class Owner:
    """Whose jobs are whose: the user who logged in, or else the browser, by a secret that it keeps."""

    def __init__(self) -> None:
        self.state = gr.BrowserState("", storage_key="t2i-owner", secret="t2i-tools-owner!")

    def give(self, page: gr.Blocks) -> None:
        """Have a browser that comes for the first time keep a secret."""
        page.load(
            lambda secret: secret or secrets.token_urlsafe(16),
            self.state,
            self.state,
            show_progress="hidden",
            api_visibility="private",
            queue=False,
        )

    @staticmethod
    def name(secret: str | None, request: gr.Request) -> str:
        """The owner's name in the queue."""
        user = getattr(request, "username", None)
        return f"user {user}" if user else f"browser {secret}"


def errors_shown(function: Callable[..., Any]) -> Callable[..., Any]:
    """Runs a handler of the page; what the user can mend becomes one line there."""

    @wraps(function)
    def wrapped(*args: Any, **named: Any) -> Any:
        try:
            return function(*args, **named)
        except T2IError as error:
            raise gr.Error(" ".join(str(error).split()), print_exception=False) from None

    return wrapped


class Panel:
    """The status and the cancel button of one tab; it shows the jobs of one kind and of the page's owner.

    Create it where the status is to stand, then `connect` it.
    """

    def __init__(self, desk: Desk, owner: Owner, kind: str, idle: str):
        self.desk, self.owner, self.kind, self.idle = desk, owner, kind, idle
        self.status = gr.HTML(view.status(desk, [], idle), elem_id=f"{kind}-status")
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
        def look(request: gr.Request, secret: str, shown: str) -> tuple[Any, ...]:
            jobs = self.desk.jobs.of(self.owner.name(secret, request), self.kind, 20)
            job, waiting = view.current(jobs), any(job.open for job in jobs)
            stamp = f"{job.id} {job.state} {len(self.desk.paths(job))} {self._version(job)}" if job else ""
            fresh = show(job) if job and stamp != shown else [gr.skip() for _ in results]
            status = view.status(self.desk, jobs, self.idle)
            return status, gr.Button(interactive=waiting), gr.Timer(active=waiting), stamp, *fresh

        @errors_shown
        def start(request: gr.Request, secret: str, shown: str, *values: Any) -> tuple[Any, ...]:
            given = read(dict(zip(fields, values, strict=True)))
            self.desk.submit(self.owner.name(secret, request), self.kind, given)
            return look(request, secret, shown)

        def stop(request: gr.Request, secret: str, shown: str) -> tuple[Any, ...]:
            self.desk.cancel_all(self.owner.name(secret, request), self.kind)
            return look(request, secret, shown)

        own = [self.owner.state, self.shown]
        quiet = {"show_progress": "hidden", "api_visibility": "private", "queue": False}
        for event in (run.click, *also):
            event(start, [*own, *fields.values()], outputs, **quiet)
        cancel.click(stop, own, outputs, **quiet)
        self.timer.tick(look, own, outputs, **quiet)
        self.owner.state.change(look, own, outputs, **quiet)
        page.load(look, own, outputs, **quiet)

    def _version(self, job: Job) -> str:
        live = self.desk.live(job)
        return str(live.extra.get("version", "")) if live else ""
