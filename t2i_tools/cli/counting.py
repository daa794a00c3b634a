"""A job of `t2i count` on its way: its rows as they come, a bar over the search, the line on how many were exact."""

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i_tools.cli.options import ModelOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from diffusers import DiffusionPipeline

    from t2i_tools.counting import Result, Step
    from t2i_tools.counting.job import Job
    from t2i_tools.detectors import Counter


def run(
    pipe: "DiffusionPipeline",
    counter: "Counter",
    chosen: ModelOptions,
    job: "Job",
    folder: Path,
    plugins: dict[str, Any],
    show: bool,
    names: bool,
) -> list[dict[str, Any]]:
    """All rows of a job, told as they come."""
    from t2i_tools.cli.generate import image_settings
    from t2i_tools.counting.job import run_job

    def describe(result: "Result") -> dict[str, Any]:
        return image_settings(pipe, chosen, job.request(result)) | plugins

    rows: list[dict[str, Any]] = []
    with progress(job, rows, show) as on_step:
        for row in run_job(pipe, counter, job, folder, describe, on_step):
            rows.append(row)
            if names:
                exact = "" if row["exact"] else ", not exact"
                print(f"{folder / row['file']}  {tally(row['found'])}{exact}", flush=True)
    if show and job.until_exact:
        print(yield_line(rows, job.number), file=sys.stderr)
    return rows


def tally(found: "Mapping[str, int]") -> str:
    """ "apples: 7, cats: 1"."""
    return ", ".join(f"{name}: {count}" for name, count in found.items())


def yield_line(rows: list[dict[str, Any]], number: int) -> str:
    """ "3 of 20 exact, yield 60 %, 21 s an exact image, about 6 min left"."""
    exact, seconds = sum(row["exact"] for row in rows), sum(row["compute"]["seconds"] for row in rows)
    line = f"{exact} of {number} exact, yield {100 * exact / max(1, len(rows)):.0f} %"
    if not exact:
        return line
    each = seconds / exact
    rest = (number - exact) * each
    left = f", about {rest / 60:.0f} min left" if rest >= 90 else f", about {rest:.0f} s left" if rest else ""
    return f"{line}, {each:.0f} s an exact image{left}"


@contextmanager
def progress(job: "Job", rows: list[dict[str, Any]], show: bool) -> "Iterator[Callable[[int, Step], None]]":
    """A bar on stderr over the budget of the present image; yields on_step(place, step)."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    bar = Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty())
    bar.disable = not (show and console.is_terminal)
    with bar:
        task = bar.add_task("opening", total=None)

        def on_step(place: int, step: "Step") -> None:
            found = ", ".join(map(str, step.found[0].values()))
            done = f"{yield_line(rows, job.number)} · " if job.until_exact and rows else ""
            which = f"image {place + 1}" + ("" if job.until_exact else f" of {job.number}")
            bar.update(task, description=f"{done}{which}, step {step.index + 1}: {found} found", advance=1)

        yield on_step
