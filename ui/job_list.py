"""An owner's jobs as HTML: the history beside every tab, the list of My jobs, and what one can do with a job.

Whatever has a data-act is clicked by way of page.js.
"""

import time
from collections.abc import Sequence
from html import escape
from pathlib import Path

from t2i_tools.bundled.scenes import plural

from . import render
from .objects import counted_prompt
from .queue import CANCELLED, DONE, FAILED, QUEUED, Job
from .service import Service
from .stage import image_url
from .words import seconds

VARIED = ("generate", "count", "grid")  # kinds that draw a seed where none is given
STATES = {QUEUED: "waiting", FAILED: "failed", CANCELLED: "cancelled"}
NOTHING = render.hint("What you start on any tab stays here.")


def history_html(service: Service, jobs: Sequence[Job], mark: str) -> str:
    """The strip beside every tab, the newest first. mark: separates this owner's forms from others' (see KeptForm)."""
    items = "".join(_past(service, job) for job in jobs)
    return f"<nav class='t2i-history' aria-label='History' data-owner='{escape(mark)}'>{items or NOTHING}</nav>"


def list_html(service: Service, jobs: Sequence[Job], caption: str) -> str:
    """One row per job, with what can be done with it; nothing without jobs."""
    rows = "".join(_row(service, job) for job in jobs)
    return f"<section class='t2i-jobs' aria-label='{escape(caption)}'>{rows}</section>" if rows else ""


def actions_html(job: Job | None, opened: bool) -> str:
    """What can be done with the job that a tab shows. opened: whether it was chosen, and need not be the latest."""
    if job is None:
        return ""
    buttons = [] if job.open else [_button(job, "again", "Again", tab=job.kind)]
    if not job.open and job.kind in VARIED:
        buttons.append(_button(job, "vary", "Vary seed", tab=job.kind))
    if job.kind == "count" and job.state == DONE and not job.asked.get("compare"):
        buttons.append(_button(job, "compare", "Compare with the plain image and other seeds"))
    if not job.open and tokens_of(job):
        buttons.append(_button(job, "try", "Try the token on other prompts", tab="generate"))
    buttons.append(_button(job, "use", "Use settings", tab=job.kind))
    buttons += [_button(job, "send", f"Send to {kind.title()}", f"data-to='{kind}'", kind) for kind in targets(job)]
    if text := prompt_of(job):
        buttons.append(_button(job, "copy", "Copy prompt", f"data-text='{escape(text)}'"))
    buttons.append(_button(job, "link", "Copy link"))
    if not job.open:
        buttons.append(_button(job, "delete", "Delete"))
    latest = ""
    if opened:
        when = time.strftime("%d %b %H:%M", time.localtime(job.created))
        back = _button(job, "latest", "Back to the latest", f"data-to='{job.kind}'")
        latest = f"<p class='t2i-hint'>Job {job.number} of {when} {back}</p>"
    return f"{latest}<div class='t2i-actions' role='group' aria-label='With this job'>{''.join(buttons)}</div>"


def targets(job: Job) -> list[str]:
    """The kinds of which a form can be filled in from this job's image or prompt."""
    kinds = ["generate"] if job.kind in ("count", "grid") and not job.open else []
    if job.kind in ("generate", "grid") and counted_prompt(job.asked.get("prompt") or ""):
        kinds.append("count")
    return kinds if job.open or job.kind not in ("generate", "count", "grid") else [*kinds, "detect"]


def tokens_of(job: Job) -> list[str]:
    """The count tokens that go together into a prompt, by name: those of the first image that has some."""
    return next((row["tokens"] for row in job.result.get("images", ()) if row.get("tokens")), [])


def prompt_of(job: Job) -> str:
    """The prompt, or the prompts one per line."""
    prompts = job.asked.get("prompts") or ()
    lines = [one["prompt"] if isinstance(one, dict) else one for one in prompts]
    return "\n".join(lines) or str(job.asked.get("prompt") or "")


def about(job: Job) -> str:
    """What a job is about, in a few words."""
    if job.kind == "count":
        return ", ".join(f"{n} {label if n == 1 else plural(label)}" for label, n in job.asked["counts"].items())
    if job.kind == "evaluate":
        number = len(job.asked.get("prompts") or ()) or job.asked.get("number")
        methods = ", ".join(job.asked["methods"])
        return f"{number} prompts: {methods.replace('_', ' ')}"
    if job.kind == "detect":
        return f"{len(job.asked['images'])} {'image' if len(job.asked['images']) == 1 else 'images'}"
    lines = prompt_of(job).splitlines()
    return f"{len(lines)} prompts" if len(lines) > 1 else "".join(lines)


def _past(service: Service, job: Job) -> str:
    state = _state(job)
    words = f"{job.kind.title()}: {about(job)}" + (f", {state}" if state else "")
    text = f"<span class='t2i-about'>{escape(_shortened(about(job)))}</span>"
    text += f"<span class='t2i-state'>{escape(state)}</span>" if state else ""
    attributes = f"class='t2i-past' title='{escape(words)}' aria-label='{escape(words)}'"
    return f"<a {_link(job)} {attributes}>{_picture(service, job)}<span class='t2i-words'>{text}</span></a>"


def _row(service: Service, job: Job) -> str:
    what = escape(_shortened(about(job), 80))
    buttons = _button(job, "cancel", "Cancel") if job.open else _button(job, "again", "Again", tab=job.kind)
    buttons += "" if job.open else _button(job, "delete", "Delete")
    line = f"{job.kind.title()} · {time.strftime('%d %b %H:%M', time.localtime(job.created))} · {_news(service, job)}"
    return (
        f"<article><a {_link(job)} aria-label='Open job {job.number}'>{_picture(service, job)}</a>"
        f"<div class='t2i-words'><a {_link(job)}>{what or job.kind.title()}</a><p>{escape(line)}</p></div>"
        f"<div class='t2i-actions' role='group' aria-label='With job {job.number}'>{buttons}</div></article>"
    )


def _news(service: Service, job: Job) -> str:
    """How far it is, or how it ended."""
    if progress := service.progress(job):
        left = progress.left()
        return progress.note + (f" · {seconds(left)} left" if left is not None else "")
    if job.open:
        return f"waiting, {len(service.jobs.before(job))} before it"
    took = f" in {seconds(job.worked)}" if job.worked else ""
    return f"failed: {job.error}" if job.error else f"{job.state}{took}"


def _picture(service: Service, job: Job) -> str:
    """The first image of a job, or the name of its kind."""
    path = _first_image(service.paths(job))
    if path is None:
        return f"<span class='t2i-thumb t2i-no-image' aria-hidden='true'>{job.kind.title()}</span>"
    return f"<img class='t2i-thumb' src='{image_url(path)}' alt='' loading='lazy'>"


def _first_image(paths: Sequence[Path]) -> Path | None:
    return next((path for path in paths if path.suffix == ".png"), None)


def _state(job: Job) -> str:
    return STATES.get(job.state, "running" if job.open else "")


def _link(job: Job) -> str:
    return f"href='?job={job.id}' data-act='open' data-job='{job.id}' data-tab='{job.kind}'"


def _button(job: Job, act: str, words: str, more: str = "", tab: str = "") -> str:
    """tab: the one that it leads to."""
    leads = f" data-tab='{tab}'" if tab else ""
    return f"<button type='button' data-act='{act}' data-job='{job.id}' {more}{leads}>{escape(words)}</button>"


def _shortened(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
