"""Works off the queue, one job at a time."""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from t2i_tools.errors import InputError, ModelError, T2IError, debugging, first_line
from t2i_tools.files import UNUSABLE, reason

from .errors import in_words
from .job_context import Cancelled, JobContext, OutOfTime, Paused, Progress
from .queue import CANCELLED, DONE, FAILED, Job, Jobs
from .registry import Registry

log = logging.getLogger("t2i_tools.ui")
CLEANING = 600.0  # seconds between two looks at what may go
QUIET = 2.0  # seconds without a job before anything is prepared, which would slow down the showing of a result
RETRY = 2.0  # seconds between two tries to write the queue where the disk is full
Written = TypeVar("Written")


class Worker(threading.Thread):
    """The thread that takes one job after the other, until `end`."""

    def __init__(
        self,
        jobs: Jobs,
        registry: Registry,
        output: Path,
        run: Callable[[Job, JobContext], None],
        clean: Callable[[], object] = lambda: None,
        minutes: int | None = None,
        ahead: Sequence[Callable[[], object]] = (),
    ):
        """ahead: What jobs will need, prepared one step at a time while no job waits; failures are only logged."""
        super().__init__(name="worker", daemon=True)
        self._jobs, self._registry, self._output, self._run = jobs, registry, output, run
        self._clean, self._minutes, self._ahead = clean, minutes, list(ahead)
        self._wake, self._ended, self._opened = threading.Event(), threading.Event(), threading.Event()
        self._context: JobContext | None = None
        self._error: T2IError | None = None
        self._cleaned = float("-inf")

    def run(self) -> None:
        """Open the first model, then take jobs for ever."""
        try:
            self._registry.warm()
        except T2IError as error:
            self._error = error
        except Exception as error:
            self._error = ModelError(f"cannot open the first model: {first_line(error)}")
            self._error.__cause__ = error
        finally:
            self._opened.set()
        while not self._ended.is_set():
            self._wake.clear()
            job = self._until_written(self._jobs.take)
            if job is not None:
                self._work(job)
            elif self._ahead:
                if not self._wake.wait(QUIET):
                    self._prepare(self._ahead.pop(0))
            else:
                self._tidy()
                self._wake.wait(CLEANING)

    def wait_for_model(self) -> None:
        """Come back when the first model is open. Raises what its opening raised."""
        while not self._opened.wait(1.0):  # a wait without end would not hear Ctrl-C on Windows
            pass
        if self._error:
            raise self._error

    def wake(self) -> None:
        """There may be a new job."""
        self._wake.set()

    def progress(self, job: Job) -> Progress | None:
        """How far a job is; None unless it is the running one."""
        context = self._context
        return context.progress if context and context.job.number == job.number else None

    def cancel(self, job: Job) -> bool:
        """End a job, waiting or running; whether there was anything to end."""
        context = self._context
        if context and context.job.number == job.number:
            context.stop.set()
            return True
        return self._jobs.drop(job)

    def end(self) -> None:
        """Stop after the present job's step, which stays in the queue for the next start."""
        self._ended.set()
        self.wake()
        if context := self._context:
            context.stop.set()
        if self.is_alive():  # it has not begun where the server could not
            self.join(timeout=60)

    def _until_written(self, write: Callable[[], Written]) -> Written | None:
        """What changes the queue, tried until its disk takes it; None when the server ends before."""
        logged = ""
        while True:
            try:
                return write()
            except InputError as error:
                if self._ended.is_set():
                    return None  # the next start takes up what is not written
                if str(error) != logged:
                    logged = str(error)
                    log.error("%s", logged)
                self._tidy()
                self._ended.wait(RETRY)

    def _prepare(self, step: Callable[[], object]) -> None:
        """Do what a job would have to; where it fails, that job says so."""
        try:
            step()
        except Exception:
            log.debug("cannot prepare", exc_info=True)

    def _tidy(self) -> None:
        """Clean, where that is due; a failure must not end the server."""
        if time.monotonic() - self._cleaned < CLEANING:
            return
        self._cleaned = time.monotonic()
        try:
            self._clean()
        except Exception:
            log.exception("cannot clean up")

    def _work(self, job: Job) -> None:
        context = self._context = JobContext(
            job, self._output, self._registry.of(job.owner), self._jobs.others_wait, self._minutes, self._jobs.get
        )
        state, error = DONE, None
        try:
            self._run(job, context)
        except Paused:
            self._until_written(partial(self._jobs.put_back, job, context.result, context.worked))
            self._context = None
            if context.stop.is_set() and not self._ended.is_set():  # cancelled at the last moment
                self._until_written(partial(self._jobs.drop, job))
            return
        except Cancelled:
            if self._ended.is_set():
                return  # still "running" in the file, which the next start takes up again
            state = CANCELLED
        except OutOfTime:
            state, error = FAILED, f"stopped after {self._minutes} min: this server works no longer on one job"
        except T2IError as problem:
            if debugging():
                log.exception("job %s refused", job.id)
            state, error = FAILED, in_words(str(problem).replace(f"{self._output}{os.sep}", ""))
        except Exception as problem:
            log.exception("job %s failed", job.id)
            state, error = FAILED, f"{type(problem).__name__}: {first_line(problem)}"
            if isinstance(problem, OSError) and problem.errno in UNUSABLE:
                error = f"cannot write {Path(problem.filename or 'a file').name}: {reason(problem)}"
        self._until_written(partial(self._jobs.finish, job, state, context.result, error, context.worked))
        self._context = None
        self._tidy()
