"""Progress bars on stderr, silent where nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


@contextmanager
def bar(show: bool, *columns: ProgressColumn) -> Iterator[Progress]:
    """A bar of these columns while the block lasts.

    Args:
        show: Whether there is one at all; without a terminal there is none either.
        columns: Of rich.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    # Rich would send what is printed meanwhile to the bar's console, past a file or pipe that waits for it.
    progress = Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty())
    progress.disable = not (show and console.is_terminal)
    with progress:
        yield progress


@contextmanager
def batch_progress(show: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar per stage with rate and time left; yields on_batch(stage, items done, items in all)."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]}")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn()
    with bar(show, *columns) as progress:
        tasks = {}

        def on_batch(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total, completed=done, rate="")
            speed = progress.tasks[tasks[stage]].speed
            progress.update(tasks[stage], completed=done, rate=f"{60 * speed:.0f}/min" if speed else "")

        yield on_batch


@contextmanager
def step_progress(images: int, show: bool) -> Iterator[Callable[[int, int, int], None]]:
    """A bar over the steps of all images; yields on_step(index of the image, steps done, steps in all)."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with bar(show, *columns) as progress:
        task = progress.add_task("denoising", total=None)

        def on_step(index: int, step: int, steps: int) -> None:
            label = f"image {index + 1} of {images}" if images > 1 else "denoising"
            progress.update(task, description=label, completed=step, total=steps)

        yield on_step
