"""Jobs as HTML. Everything from a user is escaped here."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from .errors import in_words
from .job_context import Progress
from .queue import CANCELLED, DONE, FAILED, Job
from .service import Service
from .stage import preview_html
from .words import seconds


def current(jobs: Sequence[Job]) -> Job | None:
    """The job that a page shows: the one that runs, or else the one that ended last. jobs: the newest first."""
    running = [job for job in jobs if job.state == "running"]
    ended = sorted((job for job in jobs if job.finished), key=lambda job: -(job.finished or 0))
    return next(iter([*running, *ended, *jobs]), None)


def status(service: Service, jobs: Sequence[Job], idle: str) -> str:
    """The line below the buttons: how far the job is, how many wait before it, or how it ended."""
    job, waiting = current(jobs), [job for job in jobs if job.state == "queued"]
    more = f" · {len(waiting)} more of yours wait" if waiting else ""
    if job is None:
        return empty(idle)
    if progress := service.progress(job):
        left = progress.left()
        most = "at most" if progress.at_most else "about"
        note = progress.note + (f" · {most} {seconds(left)} left" if left is not None else "") + more
        value = f"value='{progress.done}' max='{progress.total}'" if progress.total else ""
        bar = f"<progress {value} aria-label='progress'></progress>"
        return _box(f"<p role='status'>{escape(note)}</p>{bar}{_preview(progress)}")
    if waiting:
        ahead, wait = len(service.jobs.before(waiting[-1])), service.wait(waiting[-1])
        text = (
            f"Waiting: {ahead} {'job comes' if ahead == 1 else 'jobs come'} before yours" if ahead else "Next in line"
        )
        text += f", about {seconds(wait)}" if wait else ""
        return _box(f"<p role='status'>{text}</p><progress aria-label='waiting'></progress>")
    if job.state == FAILED:
        return complaint(job.error or "failed")
    files = len(job.result.get("files", ()))
    made = f", {files} {'file' if files == 1 else 'files'}" if files else ""
    ended = {DONE: "Done", CANCELLED: "Cancelled"}.get(job.state, job.state)
    took = f" in {seconds(job.worked)}" if job.state == DONE else ""
    return _box(f"<p role='status'>{ended}{took}{made}</p>")


def facts(service: Service, job: Job) -> dict[str, Any]:
    """The same for a client of the API."""
    answer: dict[str, Any] = {"job": job.id, "kind": job.kind, "state": job.state}
    if progress := service.progress(job):
        left = progress.left()
        answer |= {"note": progress.note, "done": progress.done, "total": progress.total}
        answer["seconds_left"] = None if left is None else round(left, 1)
    elif job.state == "queued":
        wait = service.wait(job)
        answer |= {"ahead": len(service.jobs.before(job)), "seconds_to_start": None if wait is None else round(wait, 1)}
    if not job.open:
        answer |= {name: value for name, value in job.result.items() if name not in ("files", "strip")}
    if job.error:
        answer["error"] = job.error
    return answer


def table(rows: Iterable[Mapping[str, Any]], caption: str) -> str:
    """Rows with the same names."""
    rows = list(rows)
    if not rows:
        return ""
    head = "".join(f"<th scope='col'>{escape(str(name))}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell(value))}</td>" for value in row.values()) + "</tr>" for row in rows
    )
    return (
        f"<div class='t2i-scroll' role='region' aria-label='{escape(caption)}' tabindex='0'><table class='t2i-table'>"
        f"<caption class='t2i-hint'>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
        "</table></div>"
    )


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)


def empty(text: str) -> str:
    """What stands where there is nothing yet."""
    return f"<div class='t2i-status t2i-empty'><p>{escape(text)}</p></div>"


def hint(text: str) -> str:
    """A line that helps."""
    return f"<p class='t2i-hint'>{escape(text)}</p>"


def complaint(error: object, field: str | None = None) -> str:
    """What is wrong, in one line. field: id of the element at which the page says it as well (page.js)."""
    place = f" data-field='{escape(field)}'" if field else ""
    return _box(f"<p role='alert' class='t2i-error'{place}>{escape(in_words(error))}</p>")


def _box(inside: str) -> str:
    return f"<div class='t2i-status'>{inside}</div>"


def _preview(progress: Progress) -> str:
    return preview_html(progress.preview, progress.preview_size) if progress.preview else ""
