"""Several processes give the bytes of one."""

import errno
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import typer
from support.waiting import wait_until

from t2i_tools.cli.running import Work
from t2i_tools.errors import InputError, ModelError
from t2i_tools.evaluation.rows_io import read_log
from t2i_tools.evaluation.runs import engines
from t2i_tools.evaluation.runs.engines import run_processes
from t2i_tools.evaluation.runs.manifest import settle
from t2i_tools.evaluation.runs.runner import run_shard
from t2i_tools.evaluation.runs.store import Store

ITEMS = 5


@pytest.fixture
def whole(start, tiny_models, rows_of, tree):
    folder = start(rows_of(ITEMS), "whole")
    run_shard(folder, tiny_models)
    Store(folder).write_merged()
    return tree(folder)


@pytest.mark.slow
def test_processes(whole, start, spawned_models, rows_of, tree):
    folder, seen = start(rows_of(ITEMS)), []
    run_processes(folder, spawned_models, 2, on_batch=lambda *state: seen.append(state))
    Store(folder).write_merged()
    assert tree(folder) == whole
    assert seen[-1] == ("score", ITEMS, ITEMS)


def test_a_worker_that_cannot_work_says_why(make_manifest, spawned_models, rows_of, tmp_path):
    settle(tmp_path / "old", replace(make_manifest(rows_of(2)), versions={"torch": "1.0"}))
    with pytest.raises(InputError, match="other versions"):
        run_processes(tmp_path / "old", spawned_models, 1)


@pytest.fixture
def launch(tiny_folder, judge_file, tmp_path):
    """launch(world, options of `t2i evaluate counts`...): under `accelerate launch`, on the CPU."""

    def run(world, *options):
        # --cpu would start one process whatever the number; --multi_gpu starts them all, on the CPU where it is alone.
        ranks = ["--multi_gpu", "--num_processes", world] if world > 1 else ["--cpu", "--num_processes", 1]
        command = [*ranks, "--num_machines", 1, "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "t2i_tools"]
        own = ["--engine", "accelerate", "--model", tiny_folder, "--judge", judge_file, "--batch", 2, "--threads", 1]
        counts = ["evaluate", "counts", *own, "--steps", 1, "--sizes", "16x16", "--quiet", *options]
        return subprocess.run(
            list(map(str, [sys.executable, "-m", "accelerate.commands.launch", *command, *counts])),
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )

    return run


def write_prompts(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
def test_accelerate(launch, rows_of, tree, tmp_path):
    """Ranks that are more than the items (5) included; each rank does its share, and no batch is done twice."""
    write_prompts(tmp_path / "p.jsonl", rows_of(ITEMS))
    trees = {}
    for world in (1, 2, 3, 7):
        done = launch(world, "--prompts", "p.jsonl", "--output", f"world{world}")
        assert done.returncode == 0, done.stderr
        notes = read_log(tmp_path / f"world{world}" / "timings.jsonl")
        assert len(notes) == len({(note["stage"], note["batch"]) for note in notes}) == 9
        assert len({note["where"] for note in notes}) == min(world, 3)  # there are three batches
        trees[world] = tree(tmp_path / f"world{world}")
    assert trees[2] == trees[3] == trees[7] == trees[1]


@pytest.mark.slow
def test_ranks_of_accelerate_try_an_error_again_once(launch, rows_of, tmp_path):
    rows = rows_of(ITEMS)
    write_prompts(tmp_path / "p.jsonl", [{**rows[0], "prompt": "\ud800"}, *rows[1:]])
    for options in ((), ("--retry-errors",)):
        assert launch(2, "--prompts", "p.jsonl", "--output", "out", *options).returncode != 0
    made = [note["batch"] for note in read_log(tmp_path / "out" / "timings.jsonl") if note["stage"] == "generate"]
    assert sorted(made) == [0, 0, 1, 2]
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["error", "ok", "ok", "ok", "ok"]


WAITING_RANK = """
import sys, threading
from types import SimpleNamespace
from t2i_tools.evaluation.runs import engines

wait = threading.Event().wait
state = SimpleNamespace(num_processes=2, process_index=1, is_main_process=False, wait_for_everyone=wait)
engines._ranks = lambda: state
engines.BEAT_SECONDS, engines.LOST_BEATS = 0.1, 20
engines.run_accelerate(sys.argv[1], None)
"""


def test_a_rank_waits_for_one_that_is_slow_and_not_for_one_that_is_gone(start, rows_of):
    """Another machine that is off closes no connection, so that only the want of a sign of life tells."""
    folder = start(rows_of(2))
    command = [sys.executable, "-c", WAITING_RANK, folder]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as rank:
        wait_until((folder / ".rank-1").exists, 60)
        until = time.monotonic() + 6  # three times as long as one that is gone is waited for
        while time.monotonic() < until:
            (folder / ".rank-0").touch()
            time.sleep(0.05)
        assert rank.poll() is None
        _, err = rank.communicate(timeout=60)
    assert rank.returncode == 2
    assert err.startswith("t2i: rank 1 stopped, because rank 0 has given no sign of life for")
    assert err.endswith("run the same command again to go on\n")
    assert err.count("\n") == 1


def test_a_rank_that_has_met_the_others_waits_for_none(start, rows_of, tiny_models, monkeypatch):
    """They may leave while the first one writes its report."""
    folder, ended = start(rows_of(2)), []
    state = SimpleNamespace(num_processes=2, process_index=0, is_main_process=True, device="cpu")
    state.wait_for_everyone = lambda: None
    monkeypatch.setattr(engines, "_ranks", lambda: state)
    monkeypatch.setattr(engines, "_end", lambda *why: ended.append(why))
    monkeypatch.setattr(engines, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(engines, "LOST_BEATS", 10**6)
    assert engines.run_accelerate(folder, tiny_models)
    monkeypatch.setattr(engines, "LOST_BEATS", 1)
    time.sleep(0.2)
    assert ended == []
    assert not list(folder.glob(".rank-*"))


def test_a_rank_that_has_lost_another_says_what_to_do():
    def lose():
        raise RuntimeError("Connection closed by peer [127.0.0.1]:1234")

    with pytest.raises(ModelError, match=r"^another rank was lost \(Connection closed.*run the same command again"):
        engines._meet(SimpleNamespace(wait_for_everyone=lose))


def test_items_that_another_process_has_are_no_success(start, rows_of, capsys):
    folder = start(rows_of(3))
    with pytest.raises(typer.Exit) as left:
        Work(folder).leave()
    assert left.value.exit_code == 1
    assert re.match(
        "t2i: 3 of 3 items in .* are still being processed by another run: .*again when", capsys.readouterr().err
    )


def test_a_file_system_without_locks_is_refused(start, tiny_models, rows_of, monkeypatch):
    """Each batch would seem to be another process', and the run would end without an image."""

    def refuse(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.lockf", refuse)
    with pytest.raises(InputError, match="cannot lock .*use a file system that supports locks"):
        run_shard(start(rows_of(2)), tiny_models)


@pytest.fixture(scope="module")
def cluster():
    """A Ray of this machine, for all worlds."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=8, log_to_driver=False, include_dashboard=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_ray(whole, cluster, start, spawned_models, rows_of, tree, world):
    from t2i_tools.evaluation.runs.ray_engine import run_ray

    folder = start(rows_of(ITEMS))
    run_ray(folder, spawned_models, world)
    Store(folder).write_merged()
    assert tree(folder) == whole
    notes = read_log(folder / "timings.jsonl")
    assert len(notes) == len({(note["stage"], note["batch"]) for note in notes}) == 9


def test_a_cluster_behind_the_client_of_ray_is_refused(start, spawned_models, rows_of, monkeypatch):
    pytest.importorskip("ray")
    from t2i_tools.evaluation.runs.ray_engine import run_ray

    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:10001")
    with pytest.raises(InputError, match=r"^a cluster behind ray:// cannot be used: run this on a machine of the"):
        run_ray(start(rows_of(2)), spawned_models, 1)


@pytest.mark.slow
def test_ray_replaces_a_lost_actor(whole, start, spawned_models, rows_of, tree, tmp_path):
    pytest.importorskip("ray")
    from t2i_tools.evaluation.runs.ray_engine import run_ray

    folder, lost, open_judge = start(rows_of(ITEMS)), tmp_path / "lost", spawned_models.judge

    def judge(device):  # the first to open it dies
        if not lost.exists():
            lost.touch()
            os._exit(1)
        return open_judge(device)

    run_ray(folder, replace(spawned_models, judge=judge), 2)
    assert lost.exists()
    Store(folder).write_merged()
    assert tree(folder) == whole


@pytest.mark.slow
def test_ray_hands_on_a_complaint(start, make_manifest, spawned_models, rows_of, tmp_path):
    pytest.importorskip("ray")
    from t2i_tools.evaluation.runs.ray_engine import run_ray

    settle(tmp_path / "old", replace(make_manifest(rows_of(2)), model={"name": "old", "fingerprint": "0" * 32}))
    with pytest.raises(InputError, match="another model") as caught:
        run_ray(tmp_path / "old", spawned_models, 1)
    assert "\n" not in str(caught.value)
