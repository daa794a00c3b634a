"""Who does the batches: this process, several here, or those of `accelerate launch`. Ray has a file of its own."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i_tools.errors import InputError, ModelError, T2IError, first_line
from t2i_tools.evaluation.runs.runner import OnBatch, chosen_batches, forget_errors, run_shard
from t2i_tools.evaluation.runs.stages import Openers
from t2i_tools.evaluation.runs.store import STAGES, Store
from t2i_tools.files import UNUSABLE, unwritable

if TYPE_CHECKING:
    from accelerate import PartialState

POLL_SECONDS = 0.5
GRACE_SECONDS = 3
BEAT_SECONDS = 60
LOST_BEATS = 60  # so many looks in which a rank gave no sign, an hour: its process is gone
AGAIN = "run the same command again to go on"


def run_processes(
    folder: str | Path,
    openers: Openers,
    workers: int,
    *,
    shard: tuple[int, int] = (0, 1),
    limit: int | None = None,
    on_batch: OnBatch | None = None,
) -> None:
    """Share a shard's batches among `workers` processes of this machine, each on an accelerator of its own if there is.

    openers: its functions must be importable where they are defined. Raises InputError with the first worker's message,
    or when one ended without a word.
    """
    part, parts = shard
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(workers)]
    # Batch b is this shard's when b % parts == part; worker w takes those with b // parts % workers == w.
    shards = [(part + parts * worker, parts * workers) for worker in range(workers)]
    processes = [
        context.Process(target=_worker, args=(folder, openers, one, limit, _device(rank), end), daemon=True)
        for rank, (one, (_, end)) in enumerate(zip(shards, pipes, strict=True))
    ]
    try:
        for process in processes:
            process.start()
        _watch(processes, partial(_progress, Store(folder), shard, limit, on_batch or (lambda *_: None)))
    except KeyboardInterrupt:  # which the workers of a terminal have as well: let them put their things away
        for process in processes:
            process.join(GRACE_SECONDS)
        raise
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
    if complaints := [mouth.recv() for mouth, _ in pipes if mouth.poll()]:
        raise InputError(complaints[0])
    if lost := [process for process in processes if process.exitcode]:
        raise ModelError(f"{len(lost)} of {workers} workers ended early (code {lost[0].exitcode}): run again to go on")


def run_accelerate(
    folder: str | Path,
    openers: Openers,
    *,
    limit: int | None = None,
    retry_errors: bool = False,
    on_batch: OnBatch | None = None,
) -> bool:
    """Do this rank's share of the batches; returns whether this is the first rank, once all are done.

    retry_errors: have every batch with an error in it done again.
    """
    state = _ranks()
    with _looking_after_others(Path(folder), state.process_index, state.num_processes):
        if retry_errors and state.is_main_process:
            forget_errors(folder, chosen_batches(Store(folder), limit=limit))
        _meet(state)  # or a later rank would forget what an earlier one has done again
        shard = (state.process_index, state.num_processes)
        first = on_batch if state.is_main_process else None
        run_shard(folder, openers, shard=shard, limit=limit, device=str(state.device), on_batch=first)
        _meet(state)
    return state.is_main_process


def accelerate_rank() -> tuple[int, str]:
    """Return this process's rank among those of `accelerate launch`, from 0, and the device assigned to it.

    From here on the rank ends when its launcher does, and says what to do, which the launcher's own message does not.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        _end_with_launcher(int(os.environ.get("RANK", 0)))  # before torch is here, which takes seconds
    state = _ranks()
    return state.process_index, str(state.device)


def _ranks() -> "PartialState":
    """accelerate's own, which on a machine without accelerator would take every rank for a run of its own.

    A rank waits at the end for as long as the others take, which after a resume may be hours.
    """
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=365))


def _meet(state: "PartialState") -> None:
    try:
        state.wait_for_everyone()
    except RuntimeError as error:
        raise ModelError(f"another rank was lost ({first_line(error)}): {AGAIN}") from error


def _end_with_launcher(rank: int) -> None:
    """End this rank when its launcher tells it to, as it does when another one is lost, or is no longer there.

    By a thread: the main one may wait for the others, where Python hears no signal.
    """
    if sys.platform == "win32":  # where this pipe and this signal are not to be had
        return
    mouth, end = os.pipe()
    os.set_blocking(end, False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.set_wakeup_fd(end, warn_on_full_buffer=False)
    launcher = os.getppid()

    def listen() -> None:
        while os.getppid() == launcher:
            if wait([mouth], POLL_SECONDS) and signal.SIGTERM in os.read(mouth, 64):
                break
        _end(rank, "stopped, because another rank was lost or the accelerate launcher has ended")

    threading.Thread(target=listen, daemon=True).start()


@contextmanager
def _looking_after_others(folder: Path, rank: int, ranks: int) -> Iterator[None]:
    """End this rank when another is lost, inside the block: its machine may be off, which no signal tells.

    Lost is a rank whose process is gone, however long a batch takes: each one touches a file of its own for as long
    as it lives. A rank that lives and hangs is not noticed.
    """
    if ranks == 1:
        yield
        return
    left = threading.Event()
    thread = threading.Thread(target=_end_when_one_is_lost, args=(folder, rank, ranks, left), daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join(GRACE_SECONDS)


def _end_when_one_is_lost(folder: Path, rank: int, ranks: int, left: threading.Event) -> None:
    signs = [folder / f".rank-{number}" for number in range(ranks)]
    seen, missed = [0] * ranks, [0] * ranks
    while not left.is_set():
        for other, sign in enumerate(signs):
            changed = seen[other]
            with suppress(OSError):  # of a file system that is away for a while
                if other == rank:
                    sign.touch()
                changed = sign.stat().st_mtime_ns  # compared with itself only: clocks of machines differ
            # Looks are counted, not seconds, which also pass while this process is stopped.
            missed[other] = missed[other] + 1 if changed == seen[other] else 0
            seen[other] = changed
            if other != rank and missed[other] >= LOST_BEATS:
                minutes = LOST_BEATS * BEAT_SECONDS / 60
                _end(rank, f"stopped, because rank {other} has given no sign of life for {minutes:g} min")
        left.wait(BEAT_SECONDS)
    with suppress(OSError):
        signs[rank].unlink(missing_ok=True)


def _end(rank: int, why: str) -> None:
    os.write(2, f"t2i: rank {rank} {why}: {AGAIN}\n".encode())
    os._exit(2)


def _worker(
    folder: str, openers: Openers, shard: tuple[int, int], limit: int | None, device: str | None, end: Any
) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        run_shard(folder, openers, shard=shard, limit=limit, device=device)
    except T2IError as error:
        end.send(str(error))
    except OSError as error:
        if error.errno not in UNUSABLE:
            raise
        end.send(str(unwritable(error.filename or folder, error)))
    except KeyboardInterrupt:
        return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
    os._exit(1)


def _device(rank: int) -> str | None:
    import torch

    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None or not torch.accelerator.is_available():
        return None
    return f"{accelerator.type}:{rank % torch.accelerator.device_count()}"


def _watch(processes: list[Any], on_progress: Callable[[], None]) -> None:
    while any(process.is_alive() for process in processes):
        on_progress()
        if any(process.exitcode for process in processes):  # the others' work stays
            break
        time.sleep(POLL_SECONDS)
    for process in processes:
        process.join()
    on_progress()


def _progress(store: Store, shard: tuple[int, int], limit: int | None, on_batch: OnBatch) -> None:
    """Tell how far the first unfinished stage is."""
    batches = chosen_batches(store, shard, limit)
    size = {batch: len(store.manifest.batches[batch]) for batch in batches}
    total = sum(size.values())
    for stage in STAGES:
        done = sum(size[batch] for batch in batches if store.done(stage, batch))
        if done < total or stage == STAGES[-1]:
            on_batch(stage, done, total)
            return
