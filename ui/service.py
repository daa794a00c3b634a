"""Everything behind the page: the queue, the worker and the models. Pages and endpoints ask here and nowhere else."""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from t2i_tools.errors import InputError
from t2i_tools.files import remove_dead_parts

from .cleaning import clean_up
from .job_context import SLICE, JobContext, Progress
from .jobs import KINDS
from .options import AppOptions
from .queue import Job, Jobs
from .registry import Registry
from .secret import read_secret
from .values import read_values
from .worker import Worker

if sys.platform != "win32":  # where two servers on one folder are not kept apart
    import fcntl


class Service:
    """One server's work. Raises InputError when another server has the output folder."""

    def __init__(self, options: AppOptions):
        self.options = options
        self.output = options.output.expanduser().resolve()
        self.files = self.output / "files"
        self._claim()
        remove_dead_parts(self.output)
        self.registry = Registry(options)
        self.jobs = Jobs(self.output / "jobs.sqlite3")
        self.jobs.recover()
        self.secret = read_secret(self.output / ".secret")
        clean, minutes = partial(clean_up, self), options.limits.job_minutes
        self.worker = Worker(self.jobs, self.registry, self.output, self._run, clean, minutes)

    def submit(self, owner: str, kind: str, given: Mapping[str, Any]) -> Job:
        """Queue a job of checked values. Raises InputError."""
        limits = self.options.limits
        self.jobs.check_room(owner, limits.queue, limits.open_jobs)  # before the work of checking the values
        values = read_values(KINDS[kind].values, dict(given))
        values = values.validated(self.options, self.registry.of(owner))
        job = self.jobs.add(owner, kind, values.model_dump(mode="json"), limits.queue, limits.open_jobs)
        self.worker.wake()
        return job

    def cancel(self, job: Job) -> bool:
        """End a job; whether it had not ended yet."""
        return self.worker.cancel(job)

    def cancel_all(self, owner: str, kind: str | None = None) -> int:
        """End all open jobs of an owner; how many there were."""
        return sum(self.cancel(job) for job in self.jobs.of(owner, kind) if job.open)

    def progress(self, job: Job) -> Progress | None:
        """How far the job is, while it runs."""
        return self.worker.progress(job)

    def wait(self, job: Job) -> float | None:
        """Seconds until a waiting job is expected to start; None where nothing is known of those before it."""
        seconds = []
        for other in self.jobs.before(job):
            progress = self.progress(other)
            left = progress.left() if progress else None
            usual = self.jobs.usual_seconds(other.kind) if left is None else left
            seconds.append(usual if other.owner == job.owner else min(usual, SLICE))
        return sum(seconds) if all(seconds) else None

    def paths(self, job: Job) -> list[Path]:
        """The files that a job has made so far."""
        if progress := self.progress(job):
            return list(progress.files)
        return [path for name in job.result.get("files", ()) if (path := self.output / name).exists()]

    def latest_result(self, job: Job) -> Job:
        """The job, or where it made no file, the latest before it of its kind and owner that did."""
        others = (other for other in self.jobs.of(job.owner, job.kind) if other.number <= job.number)
        return next((other for other in others if self.paths(other)), job)

    def close(self) -> None:
        """End the worker and let go of the folder."""
        self.worker.end()
        self.jobs.close()
        self._lock.close()

    def _run(self, job: Job, context: JobContext) -> None:
        kind = KINDS[job.kind]
        kind.run(read_values(kind.values, dict(job.asked)), context)

    def _claim(self) -> None:
        try:
            self.files.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.output / ".lock", "ab")  # noqa: SIM115
        except OSError as error:
            raise InputError(f"cannot write {self.output}: {error.strerror}") from error
        if sys.platform != "win32":
            try:
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InputError(f"another server works in {self.output}: give another --output") from error
