"""Everything behind the page: the queue, the worker and the models. Pages and endpoints ask here and nowhere else."""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from t2i_tools.errors import InputError
from t2i_tools.files import remove_dead_parts

from .cleaning import clean_up, remove_job
from .job_context import SLICE, JobContext, Progress
from .jobs import KINDS
from .options import AppOptions
from .pace import Pace, work_of
from .prepare import preparations
from .queue import Job, Jobs
from .registry import Registry
from .secret import keyed, read_secret
from .values import JobValues, read_values
from .words import seconds
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
        self.pace = Pace(self.output / ".pace.json")
        clean, minutes = partial(clean_up, self), options.limits.job_minutes
        self.worker = Worker(self.jobs, self.registry, self.output, self._run, clean, minutes, preparations(options))

    def submit(self, owner: str, kind: str, fields: Mapping[str, Any], source: str = "") -> Job:
        """Queue a job of checked values. source: the login or address that asks. Raises InputError."""
        limits = self.options.limits
        room = limits.queue, limits.open_jobs
        self.jobs.check_room(owner, source or owner, *room)  # before the work of checking the values
        values = read_values(KINDS[kind].values, dict(fields))
        values = values.validated(self.options, self.registry.of(owner))
        job = self.jobs.add(owner, kind, values.model_dump(mode="json"), *room, source)
        self.worker.wake()
        return job

    def job_of(self, owner: str, name: object) -> Job:
        """The owner's job of this id. Raises InputError, the same for somebody else's as for none at all."""
        try:
            job = self.jobs.get(name)
        except InputError:
            job = None
        if job is None or job.owner != owner:
            raise InputError(f"you have no job {str(name)[:100]!r}: it was deleted or belongs to somebody else")
        return job

    def mark(self, owner: str) -> str:
        """The mark by which a browser separates what it stores for this owner from what it stores for others."""
        return keyed(self.secret, f"mark of {owner}")

    def again(self, job: Job, vary: bool = False) -> Job:
        """Queue a job of the same values; with `vary`, of another seed. Raises InputError."""
        return self.submit(job.owner, job.kind, {**job.asked, "seed": None} if vary else job.asked, job.source)

    def compare(self, job: Job) -> Job:
        """Queue the plain image and the best of other seeds, beside a search that is done. Raises InputError."""
        if job.kind != "count" or job.open:
            raise InputError(f"job {job.number} is not a finished count search: choose one that is")
        return self.submit(job.owner, "count", {**job.asked, "compare": True, "after": job.id}, job.source)

    def delete(self, job: Job) -> None:
        """Remove an ended job with its files. Raises InputError for an open one."""
        if job.open:
            raise InputError(f"job {job.number} has not ended: cancel it before it is deleted")
        remove_job(self, job)

    def cancel(self, job: Job) -> bool:
        """End a job; whether it had not ended yet."""
        return self.worker.cancel(job)

    def cancel_all(self, owner: str, kind: str | None = None) -> int:
        """End all open jobs of an owner; how many there were."""
        return sum(self.cancel(job) for job in self.jobs.of(owner, kind) if job.open)

    def model_of(self, values: JobValues) -> str:
        """The name of the model that a job takes."""
        return getattr(values, "model", "") or next(iter(self.registry.models()))

    def work(self, values: JobValues, image_costs: Sequence[float] | None = None) -> float:
        """The denoising steps of a job (see `work_of`); 0 where that is not known beforehand. Raises InputError.

        image_costs: what each image cost, in plain images' worth; by default, the most that it may cost.
        """
        model = self.model_of(values)
        steps = self.registry.usual_steps(model)
        size = self.registry.model_size(model)
        costs = values.most_costs() if image_costs is None else image_costs
        return work_of(values.planned(), costs, steps, size) if steps else 0.0

    def forecast(self, kind: str, values: JobValues) -> str:
        """ "6 images, about 12 s", or "up to 60 images" where some are searched for, as far as that is known.

        Raises InputError.
        """
        costs, work = values.most_costs(), self.work(values)
        time = self.pace.seconds(kind, self.model_of(values), work) if work else None
        number, prefix = sum(costs), "up to " if max(costs, default=1) > 1 else ""
        text = f"{prefix}{number} image{'' if number == 1 else 's'}"
        if not time:
            return f"{text}; a time is estimated after the first job"
        return f"{text}, {prefix or 'about '}{seconds(time)}"

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
        values = read_values(kind.values, dict(job.asked))
        kind.run(values, context)
        if context.is_fresh and (work := self.work(values, context.image_costs)):
            self.pace.note(job.kind, self.model_of(values), work, context.drawing)

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
