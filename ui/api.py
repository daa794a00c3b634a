"""The named endpoints: one a kind of job, and what goes with them. Who calls them may leave and come back."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from functools import wraps
from typing import Any

import gradio as gr

from t2i_tools.errors import T2IError
from t2i_tools.ui import view
from t2i_tools.ui.desk import Desk
from t2i_tools.ui.jobs import FAILED, Job
from t2i_tools.ui.kinds import KINDS
from t2i_tools.ui.kinds.generate import restored
from t2i_tools.ui.owner import client_owner
from t2i_tools.ui.uploads import keep_start, keep_token, settings_of

POLL = 0.1


def add_endpoints(desk: Desk) -> None:
    """Put the endpoints on the page that is being built."""
    for kind in KINDS:
        gr.api(_maker(desk, kind), api_name=kind, api_description=_about(kind), concurrency_limit=None)

    @errors_told
    def cancel(request: gr.Request, job: str = "") -> dict:
        if job:
            found = desk.jobs.get(job)
            return {"cancelled": int(desk.cancel(found))}
        return {"cancelled": desk.cancel_all(client_owner(request))}

    @errors_told
    def status(job: str) -> tuple[list, dict]:
        return _answer(desk, desk.jobs.get(job))

    @errors_told
    def settings(image: dict) -> dict:
        return restored(settings_of(desk, image))

    @errors_told
    def token(file: dict) -> str:
        return keep_token(desk, file)

    cancel_about = "End a job by its id; without one, all open jobs of this client. Takes effect within one step."
    gr.api(cancel, api_name="cancel", api_description=cancel_about, queue=False)
    gr.api(status, api_name="status", api_description="(files, status) of a job by its id, now.", queue=False)
    about = "The values that make the image of a PNG again, as /generate takes them."
    gr.api(settings, api_name="settings", api_description=about, queue=False)
    about = "Keep an uploaded count token (.safetensors); its name for count_tokens of /generate."
    gr.api(token, api_name="token", api_description=about, queue=False)


def errors_told(function: Callable[..., Any]) -> Callable[..., Any]:
    """What the caller can mend goes out as one line; what Gradio makes of other errors says nothing."""

    @wraps(function)
    def wrapped(*args: Any, **named: Any) -> Any:
        try:
            return function(*args, **named)
        except T2IError as error:
            raise gr.Error(" ".join(str(error).split()), print_exception=False) from None

    return wrapped


def _maker(desk: Desk, kind: str) -> Callable[..., AsyncIterator[tuple[list, dict]]]:
    """An endpoint whose parameters are the fields of the kind's values."""
    fields = KINDS[kind].values.model_fields

    @errors_told
    def submit(owner: str, given: dict[str, Any]) -> Job:
        if isinstance(given.get("image"), Mapping):
            given["image"] = keep_start(desk, given["image"])
        return desk.submit(owner, kind, given)

    async def endpoint(request: gr.Request, *values: Any) -> AsyncIterator[tuple[list, dict]]:
        job = submit(client_owner(request), dict(zip(fields, values, strict=True)))
        seen = None
        while (job := desk.jobs.get(job.id)).open:
            files, told = _answer(desk, job)
            if (news := (len(files), told | {"seconds_left": None})) != seen:
                yield files, told
                seen = news
            await asyncio.sleep(POLL)
        if job.state == FAILED:
            raise gr.Error(job.error or "failed", print_exception=False)
        yield _answer(desk, job)

    parameter = inspect.Parameter
    endpoint.__signature__ = inspect.Signature(
        [parameter("request", parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)]
        + [
            parameter(name, parameter.POSITIONAL_OR_KEYWORD, default=_default(field), annotation=_hint(name, field))
            for name, field in fields.items()
        ],
        return_annotation=tuple[list, dict],
    )
    endpoint.__annotations__ = {"request": gr.Request} | {name: _hint(name, field) for name, field in fields.items()}
    return endpoint


def _answer(desk: Desk, job: Job) -> tuple[list, dict]:
    files = [gr.FileData(path=str(path), orig_name=path.name).model_dump() for path in desk.paths(job)]
    return files, view.facts(desk, job)


def _about(kind: str) -> str:
    text = inspect.getdoc(KINDS[kind].values) or ""
    return f"{text} Yields (files, status) until the job has ended; status['job'] is what /cancel and /status take."


def _default(field: Any) -> Any:
    return field.get_default(call_default_factory=True)


def _hint(name: str, field: Any) -> Any:
    return dict | str | None if name == "image" else field.annotation
