"""Runs the stages of an evaluation over its batches; what is done stays done, whatever ends the run."""

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from t2i_tools.evaluation.runs.manifest import Settings, check_versions
from t2i_tools.evaluation.runs.stages import Openers, Stage, open_stage
from t2i_tools.evaluation.runs.store import STAGES, Store

OnBatch: TypeAlias = Callable[[str, int, int], None]


def run_shard(
    folder: str | Path,
    openers: Openers,
    *,
    shard: tuple[int, int] = (0, 1),
    limit: int | None = None,
    stages: Sequence[str] = STAGES,
    device: str | None = None,
    on_batch: OnBatch | None = None,
) -> None:
    """Do all that is left to do of a shard's batches; a model is opened only when its stage has work.

    shard: (part, parts), part from 0. limit: only the first so many items of the manifest, in whole batches.
    on_batch: called with (stage, items done, items in all) of this shard. An item's failure is a row; raises
    InputError for a model or versions that are not the manifest's. An image that is no longer there as it was made is
    made again.
    """
    store = Store(folder)
    check_versions(store.manifest, folder)
    mine = chosen_batches(store, shard, limit)
    store.forget_lost(mine)
    with fixed_machine(store.manifest.settings):
        for stage in stages:
            _run_stage(store, stage, mine, openers, device, on_batch or (lambda *_: None))


def chosen_batches(store: Store, shard: tuple[int, int] = (0, 1), limit: int | None = None) -> list[int]:
    """The batches of a shard that hold the manifest's first `limit` items."""
    kept, items = set(), 0
    for batch, indices in enumerate(store.manifest.batches):
        if limit is None or items < limit:
            kept.add(batch)
        items += len(indices)
    return [batch for batch in store.shard(*shard) if batch in kept]


def forget_errors(folder: str | Path, batches: Sequence[int] | None = None) -> int:
    """Have every batch with an error in it done again; returns how many errors there were."""
    store, errors = Store(folder), 0
    for batch in range(len(store.manifest.batches)) if batches is None else batches:
        done = [stage for stage in STAGES if store.done(stage, batch)]
        failed = {row["key"] for stage in done for row in store.rows(stage, batch) if row["status"] == "error"}
        if failed:
            store.forget(batch)
        errors += len(failed)
    return errors


@contextmanager
def fixed_machine(settings: Settings) -> Iterator[None]:
    """Sets what the last bits depend on; the thread count comes back afterwards."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run_batch(store: Store, stage: str, batch: int, work: Stage) -> None:
    """Do one batch of a stage, unless it is done, not ready or another process has it."""
    if not store.ready(stage, batch):
        return
    with store.claim(stage, batch) as mine:
        if mine and store.ready(stage, batch):
            start = time.perf_counter()
            rows = work(batch)
            where = f"{socket.gethostname()} {os.getpid()}"
            store.write(stage, batch, rows, time.perf_counter() - start, where)


def _run_stage(
    store: Store, stage: str, batches: Sequence[int], openers: Openers, device: str | None, on_batch: OnBatch
) -> None:
    sizes = {batch: len(store.manifest.batches[batch]) for batch in batches}
    todo = [batch for batch in batches if store.ready(stage, batch)]
    done, total = sum(sizes[batch] for batch in batches if store.done(stage, batch)), sum(sizes.values())
    if not todo:
        return
    on_batch(stage, done, total)
    work = open_stage(stage, store, openers, device)
    for batch in todo:
        run_batch(store, stage, batch, work)
        done += sizes[batch]
        on_batch(stage, done, total)
