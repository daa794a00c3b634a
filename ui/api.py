"""The named endpoints: one per kind of job, and what goes with them. A client may leave and come back."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import gradio as gr

from . import api_words, render
from .identity import owner_of, source_of
from .jobs import KINDS
from .jobs.generate import values_of_settings
from .queue import FAILED, RUNNING, Job
from .service import Service
from .uploads import file_settings, keep_start, keep_token

POLL, POLL_WAITING = 0.1, 0.5


def add_endpoints(service: Service) -> None:
    """Put the endpoints on the page that is being built."""
    for kind in KINDS:
        _add(_maker(service, kind), kind, _about(kind), concurrency_limit=None)

    def cancel(request: gr.Request, job: str = "") -> dict:
        if job:
            found = service.jobs.get(job)
            return {"cancelled": int(service.cancel(found))}
        return {"cancelled": service.cancel_all(owner_of(request))}

    def status(job: str) -> tuple[list, dict]:
        return _answer(service, service.jobs.get(job))

    def settings(image: dict) -> tuple[dict, list]:
        read, notes = file_settings(service, image)
        return values_of_settings(read), notes

    def token(request: gr.Request, file: dict) -> str:
        return keep_token(service, owner_of(request), file)

    def forget_token(request: gr.Request, name: str) -> dict:
        service.registry.of(owner_of(request)).forget_token(name)
        return {"forgotten": name}

    cancel_about = "End a job by its id; without one, all open jobs of this client. Takes effect within one step."
    _add(cancel, "cancel", cancel_about, queue=False)
    _add(status, "status", "(files, status) of a job by its id, now.", queue=False)
    about = "(values, notes) of an image file: as /generate takes them, and one line per thing that does not act here."
    _add(settings, "settings", about, queue=False)
    about = "Keep an uploaded count token (.safetensors); its name for count_tokens of /generate."
    _add(token, "token", about, queue=False)
    about = "Delete a count token that this client has uploaded or learned."
    _add(forget_token, "forget_token", about, queue=False)


def _add(function: Callable[..., Any], name: str, description: str, **options: Any) -> None:
    """Put one endpoint on the page, its parameters and what it returns labelled with what they are."""
    gr.api(function, api_name=name, api_description=description, **options)
    endpoint = gr.context.Context.root_block.fns[max(gr.context.Context.root_block.fns)]
    names = [one for one, value in inspect.signature(function).parameters.items() if value.annotation is not gr.Request]
    for part, parameter in zip(endpoint.inputs, names, strict=True):
        part.label = api_words.about(name, parameter)
    for part, words in zip(endpoint.outputs, api_words.RETURNS.get(name, api_words.JOB_RETURNS), strict=True):
        part.label = words


def _maker(service: Service, kind: str) -> Callable[..., AsyncIterator[tuple[list, dict]]]:
    """An endpoint whose parameters are the fields of the kind's values."""
    fields = KINDS[kind].values.model_fields

    def submit(request: gr.Request, raw: dict[str, Any]) -> Job:
        if isinstance(raw.get("image"), Mapping):
            raw["image"] = keep_start(service, raw["image"])
        if isinstance(raw.get("images"), list):
            raw["images"] = [keep_start(service, one) if isinstance(one, Mapping) else one for one in raw["images"]]
        return service.submit(owner_of(request), kind, raw, source_of(request))

    async def endpoint(request: gr.Request, *values: Any) -> AsyncIterator[tuple[list, dict]]:
        job = await asyncio.to_thread(submit, request, dict(zip(fields, values, strict=True)))
        seen = None
        while (job := service.jobs.get(job.id)).open:
            files, status = _answer(service, job)
            if (news := (len(files), status | {"seconds_left": None, "seconds_to_start": None})) != seen:
                yield files, status
                seen = news
            await asyncio.sleep(POLL if job.state == RUNNING else POLL_WAITING)
        if job.state == FAILED:
            raise gr.Error(job.error or "failed", print_exception=False)
        yield _answer(service, job)

    parameter = inspect.Parameter
    vars(endpoint)["__signature__"] = inspect.Signature(
        [parameter("request", parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request)]
        + [
            parameter(name, parameter.POSITIONAL_OR_KEYWORD, default=_default(field), annotation=_hint(name, field))
            for name, field in fields.items()
        ],
        return_annotation=tuple[list, dict],
    )
    endpoint.__annotations__ = {"request": gr.Request} | {name: _hint(name, field) for name, field in fields.items()}
    return endpoint


def _answer(service: Service, job: Job) -> tuple[list, dict]:
    files = [gr.FileData(path=str(path), orig_name=path.name).model_dump() for path in service.paths(job)]
    return files, render.facts(service, job)


def _about(kind: str) -> str:
    text = inspect.getdoc(KINDS[kind].values) or ""
    return f"{text} Yields (files, status) until the job has ended; status['job'] is what /cancel and /status take."


def _default(field: Any) -> Any:
    return field.get_default(call_default_factory=True)


def _hint(name: str, field: Any) -> Any:
    return {"image": dict | str | None, "images": list}.get(name, field.annotation)
