"""The work of `t2i evaluate` under a progress bar, and what is told at its end."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from t2i_tools.errors import InputError

if TYPE_CHECKING:
    from t2i_tools.evaluation.stages import Models

ENGINES = ("local", "accelerate", "ray")


def check_engine(engine: str, workers: int, shard: tuple[int, int]) -> None:
    """Raise InputError for an engine that is unknown or does not go with the other options."""
    if engine not in ENGINES:
        raise InputError(f"unknown engine {engine!r}: choose {', '.join(ENGINES)}")
    if engine == "accelerate" and (workers, shard) != (1, (0, 1)):
        raise InputError("--engine accelerate shares the work by itself: leave --workers and --shard out")


@dataclass(frozen=True)
class Work:
    """One call of the shell: what part of which folder is to be done."""

    folder: Path
    shard: tuple[int, int] = (0, 1)
    limit: int | None = None
    retry_errors: bool = False
    show: bool = False

    def run(self, engine: str, workers: int, models: "Models", opened: "Models") -> bool:
        """Do it; returns whether this process is the one that reports.

        models: for other processes; opened: for this one.
        """
        from t2i_tools.evaluation import engines
        from t2i_tools.evaluation.runner import chosen_batches, forget_errors, run_shard
        from t2i_tools.evaluation.store import Store

        with progress(self.show) as on_batch:
            options = {"limit": self.limit, "on_batch": on_batch}
            if engine == "accelerate":
                return engines.run_accelerate(self.folder, opened, retry_errors=self.retry_errors, **options)
            options["shard"] = self.shard
            if self.retry_errors:
                forget_errors(self.folder, chosen_batches(Store(self.folder), self.shard, self.limit))
            if engine == "ray":
                from t2i_tools.evaluation.ray_engine import run_ray

                run_ray(self.folder, models, workers, **options)
            elif workers > 1:
                engines.run_processes(self.folder, models, workers, **options)
            else:
                run_shard(self.folder, opened, **options)
        return True

    def leave(self) -> None:
        """Say how many items failed, and leave with 1 if any did."""
        from t2i_tools.evaluation.runner import chosen_batches
        from t2i_tools.evaluation.store import Store

        store = Store(self.folder)
        chosen = {i for batch in chosen_batches(store, self.shard, self.limit) for i in store.manifest.batches[batch]}
        rows = [row for row in store.merged() if row["index"] in chosen]
        if errors := [row for row in rows if row["status"] == "error"]:
            print(
                f"t2i: {len(errors)} of {len(rows)} items failed ({errors[0]['error']}): --retry-errors tries again",
                file=sys.stderr,
            )
            raise typer.Exit(1)


def finish(folder: Path, protocol: Path | None, geneval: Path | None, show: bool) -> None:
    """Write the rows and the report of whatever is done, and print its table and where it is."""
    from t2i_tools.evaluation.pictures import write_geneval
    from t2i_tools.evaluation.report import write_report
    from t2i_tools.evaluation.store import Store

    rows = Store(folder).write_merged()
    if geneval:
        write_geneval(rows, folder, geneval)
    table = write_report(folder, rows, protocol)
    if show:
        print(f"{table}\n{folder / 'report.html'}")


@contextmanager
def progress(show: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr with rate and time left; yields on_batch(stage, items done, items in all)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]}")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn()
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty())
    bar.disable = not (show and console.is_terminal)
    tasks: dict[str, int] = {}
    with bar:

        def on_batch(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total, completed=done, rate="")
            speed = bar.tasks[tasks[stage]].speed
            bar.update(tasks[stage], completed=done, rate=f"{60 * speed:.0f}/min" if speed else "")

        yield on_batch
