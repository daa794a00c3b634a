"""Works off the queue, one job at a time, and tells how far it is."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from t2i_tools.errors import T2IError, first_line
from t2i_tools.models import denoiser
from t2i_tools.ui.jobs import CANCELLED, DONE, FAILED, Job, Jobs
from t2i_tools.ui.preview import data_url, previewed
from t2i_tools.ui.shelf import Choice, Shelf

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.cli.options import ModelOptions

log = logging.getLogger("t2i_tools.ui")


class Cancelled(KeyboardInterrupt):
    """The user has had enough: as Ctrl-C to the library, which goes on after errors but not after this."""


@dataclass
class Live:
    """How far the running job is. preview: a data URL. files: those finished. events: what its kind tells besides."""

    note: str = "starting"
    done: int = 0
    total: int = 0
    preview: str | None = None
    files: list[Path] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    strip: list[dict[str, Any]] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)

    def tell(self, done: int, total: int, note: str) -> None:
        """Say how much of the whole is done, in steps of any kind."""
        self.done, self.total, self.note = done, total, note

    def left(self) -> float | None:
        """Seconds until the end, as far as one can say."""
        if not self.done or not self.total:
            return None
        return (time.monotonic() - self.since) * (self.total - self.done) / self.done


class Bench:
    """What a job works with: its folder, the models, and the ear for a cancellation."""

    def __init__(self, job: Job, output: Path, shelf: Shelf, stop: threading.Event):
        self.job, self.output, self.shelf, self.stop = job, output, shelf, stop
        self.folder = output / "files" / job.folder
        self.live = Live()
        self.result: dict[str, Any] = {}
        self._told = False

    def check(self) -> None:
        """Raise Cancelled when the job is to end; once, for what was found so far may have to be finished."""
        if self.stop.is_set() and not self._told:
            self._told = True
            raise Cancelled

    @contextmanager
    def pipeline(self, choice: Choice) -> "Iterator[tuple[DiffusionPipeline, ModelOptions]]":
        """The pipeline of this choice, shown at work; a cancellation ends it before its next denoising step."""
        self.live.tell(0, 0, "opening the model")
        with self.shelf.pipeline(choice) as (pipe, options):
            self.check()
            hook = denoiser(pipe).register_forward_pre_hook(lambda *_: self.check())
            try:
                self.live.since = time.monotonic()
                with previewed(pipe, self.show):
                    yield pipe, options
            finally:
                hook.remove()

    def cancelled(self) -> None:
        """Raise Cancelled at last, for a job that has put in order what it had."""
        raise Cancelled

    def show(self, image: Image.Image) -> None:
        """Have the page show this picture meanwhile."""
        self.live.preview = data_url(image)

    def name(self, path: Path) -> str:
        """A file of ours as a result names it."""
        return path.relative_to(self.output).as_posix()


class Worker(threading.Thread):
    """The thread that takes one job after the other, until `end`."""

    def __init__(self, jobs: Jobs, shelf: Shelf, output: Path, run: Callable[[Job, Bench], None]):
        super().__init__(name="worker", daemon=True)
        self._jobs, self._shelf, self._output, self._run = jobs, shelf, output, run
        self._wake, self._ended = threading.Event(), threading.Event()
        self._bench: Bench | None = None

    def run(self) -> None:
        """Open the first model, then take jobs for ever."""
        try:
            self._shelf.warm()
        except T2IError as error:
            log.error("t2i: %s", error)
        while not self._ended.is_set():
            self._wake.clear()
            if (job := self._jobs.take()) is not None:
                self._work(job)
            else:
                self._wake.wait()

    def wake(self) -> None:
        """There may be a new job."""
        self._wake.set()

    def live(self, job: Job) -> Live | None:
        """How far a job is; None unless it is the running one."""
        bench = self._bench
        return bench.live if bench and bench.job.number == job.number else None

    def cancel(self, job: Job) -> bool:
        """End a job, waiting or running; whether there was anything to end."""
        bench = self._bench
        if bench and bench.job.number == job.number:
            bench.stop.set()
            return True
        return self._jobs.drop(job)

    def end(self) -> None:
        """Stop after the present job's step, which stays in the queue for the next start."""
        self._ended.set()
        self.wake()
        if bench := self._bench:
            bench.stop.set()
        if self.is_alive():  # it has not begun where the server could not
            self.join(timeout=60)

    def _work(self, job: Job) -> None:
        bench = self._bench = Bench(job, self._output, self._shelf, threading.Event())
        state, error = DONE, None
        try:
            self._run(job, bench)
        except Cancelled:
            if self._ended.is_set():
                return  # still "running" in the file, which the next start takes up again
            state = CANCELLED
        except T2IError as problem:
            state, error = FAILED, " ".join(str(problem).replace(f"{self._output}{os.sep}", "").split())
        except Exception as problem:
            log.exception("job %s failed", job.id)
            state, error = FAILED, f"{type(problem).__name__}: {first_line(problem)}"
        self._jobs.finish(job, state, bench.result, error)
        self._bench = None
