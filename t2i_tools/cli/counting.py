"""A job of `t2i count` on its way: its rows as they come, a bar over the search, the line on how many were exact."""

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i_tools.workflows.count import kept_line, tally, yield_line
from t2i_tools.workflows.open_model import BUNDLED, BUNDLED_FORMS, ModelOptions
from t2i_tools.workflows.progress import bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from diffusers import DiffusionPipeline

    from t2i_tools.counting import Result, Step
    from t2i_tools.counting.count_run import CountRow, CountRun
    from t2i_tools.detectors import Counter


def run(
    pipe: "DiffusionPipeline",
    counter: "Counter",
    chosen: ModelOptions,
    job: "CountRun",
    folder: Path,
    plugins: dict[str, Any],
    show: bool,
    names: bool,
) -> "list[CountRow]":
    """All rows of a job, printed as they come."""
    from t2i_tools.counting.count_run import run_searches
    from t2i_tools.workflows.detectors import clip_on
    from t2i_tools.workflows.settings import image_settings

    def describe(result: "Result") -> dict[str, Any]:
        return image_settings(pipe, chosen, job.request(result)) | plugins

    rows: list[CountRow] = []
    clip = clip_on(BUNDLED, None) if chosen.model in BUNDLED_FORMS else None  # no other model has one of its own
    with search_progress(job, rows, show) as on_step:
        for row in run_searches(pipe, counter, job, folder, describe, on_step, clip):
            rows.append(row)
            if names:
                exact = "" if row["exact"] else ", not exact"
                print(f"{folder / row['file']}  {tally(row['counted'])}{exact}{kept_line(row)}", flush=True)
    if show and job.until_exact:
        print(yield_line(rows, job.number), file=sys.stderr)
    return rows


@contextmanager
def search_progress(job: "CountRun", rows: "list[CountRow]", show: bool) -> "Iterator[Callable[[int, Step], None]]":
    """A bar over the search for the present image; yields on_step(place, step)."""
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    with bar(show, TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()) as progress:
        task = progress.add_task("opening", total=None)

        def on_step(place: int, step: "Step") -> None:
            counted = ", ".join(map(str, step.counted[0].values()))
            done = f"{yield_line(rows, job.number)} · " if job.until_exact and rows else ""
            which = f"image {place + 1}" + ("" if job.until_exact else f" of {job.number}")
            progress.update(task, description=f"{done}{which}, step {step.index + 1}: {counted} found", advance=1)

        yield on_step
