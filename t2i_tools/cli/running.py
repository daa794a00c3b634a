"""The work of `t2i evaluate` under a progress bar, and the summary at its end."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from t2i_tools.errors import InputError
from t2i_tools.workflows.progress import batch_progress

if TYPE_CHECKING:
    from t2i_tools.evaluation.runs.stages import Openers


def check_engine(engine: str, workers: int, shard: tuple[int, int]) -> None:
    """Raise InputError for an engine that does not go with the other options."""
    if engine == "accelerate" and (workers, shard) != (1, (0, 1)):
        raise InputError("--engine accelerate shares the work by itself: leave --workers and --shard out")
    ranks = os.environ.get("WORLD_SIZE", "1") if "LOCAL_RANK" in os.environ else "1"
    if engine != "accelerate" and ranks != "1" and shard == (0, 1):
        raise InputError(f"a launcher started this command {ranks} times: add --engine accelerate to share the work")


@dataclass(frozen=True)
class Work:
    """One call of the shell: what part of which folder is to be done."""

    folder: Path
    shard: tuple[int, int] = (0, 1)
    limit: int | None = None
    retry_errors: bool = False
    show: bool = False
    is_part: bool = False  # a partial result: items that no folder has are not an error

    def run(self, engine: str, workers: int, openers: "Openers", opened: "Openers") -> bool:
        """Do it; returns whether this process is the one that reports.

        openers: for other processes; opened: for this one.
        """
        from t2i_tools.evaluation.runs import engines
        from t2i_tools.evaluation.runs.runner import chosen_batches, forget_errors, run_shard
        from t2i_tools.evaluation.runs.store import Store

        with batch_progress(self.show) as on_batch:
            options: dict[str, Any] = {"limit": self.limit, "on_batch": on_batch}
            if engine == "accelerate":
                return engines.run_accelerate(self.folder, opened, retry_errors=self.retry_errors, **options)
            options["shard"] = self.shard
            if self.retry_errors:
                forget_errors(self.folder, chosen_batches(Store(self.folder), self.shard, self.limit))
            if engine == "ray":
                from t2i_tools.evaluation.runs.ray_engine import run_ray

                run_ray(self.folder, openers, workers, **options)
            elif workers > 1:
                engines.run_processes(self.folder, openers, workers, **options)
            else:
                run_shard(self.folder, opened, **options)
        return True

    def leave(self) -> None:
        """Print how many items failed or are still being processed by another run; exit with code 1 if any are."""
        from t2i_tools.evaluation.runs.runner import chosen_batches
        from t2i_tools.evaluation.runs.store import Store

        store = Store(self.folder)
        chosen = {i for batch in chosen_batches(store, self.shard, self.limit) for i in store.manifest.batches[batch]}
        rows = [row for row in store.merged() if row["index"] in chosen]
        if errors := [row for row in rows if row["status"] == "error"]:
            print(
                f"t2i: {len(errors)} of {len(rows)} items failed ({errors[0]['error']}): --retry-errors tries again",
                file=sys.stderr,
            )
            raise typer.Exit(1)
        if not self.is_part and (left := sum(row["status"] == "missing" for row in rows)):
            print(
                f"t2i: {left} of {len(rows)} items in {self.folder} are still being processed by another run: run "
                "the same command again when it has ended",
                file=sys.stderr,
            )
            raise typer.Exit(1)
