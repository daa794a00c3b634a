"""What a running job works with: its folder, the models, how far it is, and what may end it early."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from t2i_tools.errors import InputError
from t2i_tools.models.anatomy import denoiser

from .preview import data_url, previewed
from .queue import Job
from .registry import Choice, Registry

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.workflows.open_model import ModelOptions

SLICE = 10.0  # seconds after which a job that can go on later makes room for somebody else's


class Cancelled(KeyboardInterrupt):
    """The user ends the job. A KeyboardInterrupt, because the library goes on after errors but not after this."""


class OutOfTime(KeyboardInterrupt):
    """The job has taken all the time that this server gives to one."""


class Paused(KeyboardInterrupt):
    """It is somebody else's turn; the job is put back into the queue and goes on where it was."""


@dataclass
class Progress:
    """How far the running job is.

    preview: a data URL, of an image of preview_size pixels. files: those finished. events: further news of its kind.
    strip: of a search, its trials.
    """

    note: str = "starting"
    done: int = 0
    total: int = 0
    preview: str | None = None
    preview_size: tuple[int, int] = (1, 1)
    files: list[Path] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    strip: list[dict[str, Any]] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)
    at_most: bool = False  # whether the end may come sooner

    def report(self, done: int, total: int, note: str) -> None:
        """Set how much is done, in steps of any kind."""
        self.done, self.total, self.note = done, total, note

    def left(self) -> float | None:
        """Seconds until the end, as far as one can say."""
        if not self.done or not self.total:
            return None
        return (time.monotonic() - self.since) * (self.total - self.done) / self.done


class JobContext:
    """What a job works with: its folder, the models, and what may end it early."""

    def __init__(
        self,
        job: Job,
        output: Path,
        registry: Registry,
        others_wait: Callable[[Job], bool] = lambda job: False,
        minutes: int | None = None,
        find: Callable[[str], Job] | None = None,
    ):
        self.job, self.output, self.registry, self.stop = job, output, registry, threading.Event()
        self.folder = output / "files" / job.folder
        self.progress = Progress()
        self.result: dict[str, Any] = {}
        self.strip: list[dict[str, Any]] = []  # the trials of a search that this one goes on from
        self.image_costs: list[float] | None = None  # in plain images' worth, once an evaluation's searches are done
        self._find = find
        self.is_fresh = job.attempts <= 1 and not job.worked  # nothing of it was made before
        self._others_wait, self._seconds = others_wait, minutes * 60.0 if minutes else float("inf")
        self._begun = time.monotonic()
        self._opening = 0.0
        self._reason: KeyboardInterrupt | None = None

    @property
    def worked(self) -> float:
        """Seconds of work on this job so far, over all attempts."""
        return self.job.worked + time.monotonic() - self._begun

    def earlier(self, name: str) -> Job | None:
        """The job of this id, of the same owner and kind, that has ended; None where there is none."""
        try:
            job = self._find(name) if self._find else None
        except InputError:
            return None
        mine = job and not job.open and (job.owner, job.kind) == (self.job.owner, self.job.kind)
        return job if mine else None

    @property
    def drawing(self) -> float:
        """Seconds since the model is open."""
        return time.monotonic() - self.progress.since

    def check(self) -> None:
        """Raise when the job is to end; once, for what was made so far may have to be finished."""
        if self.stop.is_set():
            self._leave(Cancelled())
        if self.worked > self._seconds:
            self._leave(OutOfTime())

    def pause(self) -> None:
        """Between two images, of which no work is lost: raise as `check`, or where it is somebody else's turn.

        A job keeps its turn for as long as opening its model took, or a model that is hard to open would be opened for
        every image.
        """
        self.check()
        if time.monotonic() - self.progress.since >= max(SLICE, self._opening) and self._others_wait(self.job):
            self._leave(Paused())

    def _leave(self, reason: KeyboardInterrupt) -> None:
        if self._reason is None:
            self._reason = reason
            raise reason

    @contextmanager
    def pipeline(self, choice: Choice) -> "Iterator[tuple[DiffusionPipeline, ModelOptions]]":
        """The pipeline of this choice, shown at work; a cancellation ends it before its next denoising step."""
        self.progress.report(0, 0, "opening the model")
        with self.registry.pipeline(choice) as (pipe, options):
            self.check()
            hook = denoiser(pipe).register_forward_pre_hook(lambda *_: self.check())
            try:
                self.progress.since = time.monotonic()
                self._opening = self.progress.since - self._begun
                with previewed(pipe, self.show):
                    yield pipe, options
            finally:
                hook.remove()

    def raise_cancelled(self) -> None:
        """Raise what ended the job, once its partial results are in order."""
        raise self._reason or Cancelled()

    def show(self, image: Image.Image) -> None:
        """Have the page show this image meanwhile."""
        self.progress.preview_size = image.size
        self.progress.preview = data_url(image)

    def name(self, path: Path) -> str:
        """The file's name in a result: its path below the output folder."""
        return path.relative_to(self.output).as_posix()
