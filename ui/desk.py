"""Everything behind the page: the queue, the worker and the models. Pages and endpoints ask here and nowhere else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t2i_tools.errors import InputError
from t2i_tools.ui.jobs import Job, Jobs
from t2i_tools.ui.kinds import KINDS
from t2i_tools.ui.options import AppOptions
from t2i_tools.ui.shelf import Shelf
from t2i_tools.ui.values import read_values
from t2i_tools.ui.worker import Bench, Live, Worker

try:
    import fcntl
except ImportError:  # Windows: two servers on one folder are not kept apart there
    fcntl = None


class Desk:
    """One server's work. Raises InputError when another server has the output folder."""

    def __init__(self, options: AppOptions):
        self.options = options
        self.output = options.output.expanduser().resolve()
        self.files = self.output / "files"
        self._claim()
        self.shelf = Shelf(options)
        self.jobs = Jobs(self.output / "jobs.sqlite3")
        self.jobs.recover()
        self.worker = Worker(self.jobs, self.shelf, self.output, self._run)

    def submit(self, owner: str, kind: str, given: Mapping[str, Any]) -> Job:
        """Queue a job of checked values. Raises InputError."""
        values = read_values(KINDS[kind].values, dict(given))
        values = values.settled(self.options, self.shelf)
        job = self.jobs.add(owner, kind, values.model_dump(mode="json"), self.options.limits.queue)
        self.worker.wake()
        return job

    def cancel(self, job: Job) -> bool:
        """End a job; whether it had not ended yet."""
        return self.worker.cancel(job)

    def cancel_all(self, owner: str, kind: str | None = None) -> int:
        """End all open jobs of an owner; how many there were."""
        return sum(self.cancel(job) for job in self.jobs.of(owner, kind) if job.open)

    def live(self, job: Job) -> Live | None:
        """How far the job is, while it runs."""
        return self.worker.live(job)

    def paths(self, job: Job) -> list[Path]:
        """The files that a job has made so far."""
        if live := self.live(job):
            return list(live.files)
        return [path for name in job.result.get("files", ()) if (path := self.output / name).exists()]

    def close(self) -> None:
        """End the worker and let go of the folder."""
        self.worker.end()
        self.jobs.close()
        self._lock.close()

    def _run(self, job: Job, bench: Bench) -> None:
        kind = KINDS[job.kind]
        kind.run(read_values(kind.values, dict(job.asked)), bench)

    def _claim(self) -> None:
        try:
            self.files.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.output / ".lock", "ab")  # noqa: SIM115
        except OSError as error:
            raise InputError(f"cannot write {self.output}: {error.strerror}") from error
        if fcntl:
            try:
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InputError(f"another server works in {self.output}: give another --output") from error
