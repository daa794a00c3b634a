"""Ray does the batches: one actor a device, on every machine of a cluster that shares the evaluation's folder."""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i_tools.errors import InputError, ModelError, T2IError, UnsupportedModelError, first_line, install
from t2i_tools.evaluation.runs.engines import AGAIN
from t2i_tools.evaluation.runs.manifest import check_versions
from t2i_tools.evaluation.runs.runner import OnBatch, chosen_batches, fixed_machine, run_batch
from t2i_tools.evaluation.runs.stages import Openers, Stage, open_stage
from t2i_tools.evaluation.runs.store import STAGES, Store

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_LOSSES = 3  # of actors over one batch: more is no accident
LOOK_SECONDS = 10  # between two looks whether the cluster is still there


def run_ray(
    folder: str | Path,
    openers: Openers,
    workers: int,
    *,
    shard: tuple[int, int] = (0, 1),
    limit: int | None = None,
    on_batch: OnBatch | None = None,
) -> None:
    """Hand a shard's batches to `workers` actors; one that is lost is replaced and its batch done again.

    The cluster is the one of RAY_ADDRESS, or one started on this machine for the while. Raises InputError for what an
    actor complains of and for a cluster behind Ray's client, ModelError when a batch loses every actor,
    UnsupportedModelError without Ray.
    """
    try:
        import ray
    except ImportError as error:
        raise UnsupportedModelError(f"no Ray here ({first_line(error)}): {install('ray')}") from error
    if "://" in os.environ.get("RAY_ADDRESS", "") or ray.util.client.ray.is_connected():
        # From there the cluster's head, for which `_answers` looks, may be out of reach, and so may be this folder.
        raise InputError(
            "a cluster behind ray:// cannot be used: run this on a machine of the cluster, with RAY_ADDRESS=auto"
        )
    store = Store(folder)
    batches = chosen_batches(store, shard, limit)
    store.forget_lost(batches)
    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    try:
        gpus = 0 if store.manifest.settings.device == "cpu" else 1
        actor = ray.remote(num_gpus=gpus, max_restarts=0)(_Worker)
        hire = lambda: actor.remote(str(Path(folder).resolve()), openers)  # noqa: E731
        for stage in STAGES:
            _run_stage(ray, store, stage, batches, hire, workers, on_batch or (lambda *_: None))
    finally:
        if ours:
            ray.shutdown()


class _Worker:
    """One actor: it keeps the model of the stage it is at."""

    def __init__(self, folder: str, openers: Openers):
        self.store, self.openers = Store(folder), openers
        self.stage = ""
        self.work: Stage | None = None

    def do(self, stage: str, batch: int) -> None:
        check_versions(self.store.manifest, self.store.folder)
        with fixed_machine(self.store.manifest.settings):
            if stage != self.stage or self.work is None:
                self.work = None  # the last stage's model goes before the next one comes
                self.stage, self.work = stage, open_stage(stage, self.store, self.openers)
            run_batch(self.store, stage, batch, self.work)


def _run_stage(
    ray: Any,
    store: Store,
    stage: str,
    batches: list[int],
    hire: Callable[[], Any],
    workers: int,
    on_batch: OnBatch,
) -> None:
    size = {batch: len(store.manifest.batches[batch]) for batch in batches}
    todo = deque(batch for batch in batches if store.ready(stage, batch))
    idle = [hire() for _ in range(min(workers, len(todo)))]
    running: dict[Any, tuple[Any, int]] = {}
    losses: Counter[int] = Counter()
    while todo or running:
        while idle and todo:
            actor, batch = idle.pop(), todo.popleft()
            running[actor.do.remote(stage, batch)] = actor, batch
        finished = _first_of(ray, list(running))
        actor, batch = running.pop(finished)
        try:
            ray.get(finished)
        except ray.exceptions.RayActorError as error:
            losses[batch] += 1
            if losses[batch] == MOST_LOSSES:
                raise ModelError(
                    f"{MOST_LOSSES} Ray actors were lost on batch {batch} of {stage}, perhaps out of memory: {AGAIN}; "
                    "if it happens again, start in a new folder with a smaller --batch"
                ) from error
            actor = hire()
            todo.appendleft(batch)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, T2IError):
                raise error.cause from error
            raise
        idle.append(actor)
        on_batch(stage, sum(size[one] for one in batches if store.done(stage, one)), sum(size.values()))


def _first_of(ray: Any, running: list[Any]) -> Any:
    """The first to finish. Raises ModelError when Ray on this machine is lost, which `wait` alone never notices."""
    here = ray.get_runtime_context().get_node_id()
    while True:
        finished, _ = ray.wait(running, num_returns=1, timeout=LOOK_SECONDS)
        if finished:
            return finished[0]
        if not _answers(ray) or not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == here):
            raise ModelError(f"Ray's processes were lost: {AGAIN}")


def _answers(ray: Any) -> bool:
    """Whether the head of the cluster is there; without it, Ray ends this process after a minute, in pages of text."""
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK_SECONDS).close()
    except OSError:
        return False
    return True
