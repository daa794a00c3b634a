"""Several processes give the bytes of one."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from t2i_tools.errors import InputError
from t2i_tools.evaluation.engines import run_processes
from t2i_tools.evaluation.manifest import settle
from t2i_tools.evaluation.runner import run_shard
from t2i_tools.evaluation.store import Store

ITEMS = 5


@pytest.fixture
def whole(start, tiny_models, rows_of, tree):
    folder = start(rows_of(ITEMS), "whole")
    run_shard(folder, tiny_models)
    Store(folder).write_merged()
    return tree(folder)


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


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3, 7])
def test_accelerate(whole, start, tiny_folder, judge_file, rows_of, tree, world):
    folder = start(rows_of(ITEMS))
    script = folder.parent / "rank.py"
    script.write_text(
        "import sys\n"
        "from t2i_tools.cli.judges import models_of\n"
        "from t2i_tools.cli.options import ModelOptions\n"
        "from t2i_tools.evaluation.engines import run_accelerate\n"
        "from t2i_tools.evaluation.store import Store\n"
        "models = models_of(ModelOptions(model=sys.argv[2], device='cpu'), sys.argv[3], None, (), None)\n"
        "if run_accelerate(sys.argv[1], models): Store(sys.argv[1]).write_merged()\n"
    )
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(world)]
    command = [*launch, "--num_machines", "1", "--mixed_precision", "no", script, folder, tiny_folder, judge_file]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert tree(folder) == whole


@pytest.mark.slow
def test_ray_replaces_a_lost_actor(whole, start, spawned_models, rows_of, tree, tmp_path):
    pytest.importorskip("ray")
    from t2i_tools.evaluation.ray_engine import run_ray

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
    from t2i_tools.evaluation.ray_engine import run_ray

    settle(tmp_path / "old", replace(make_manifest(rows_of(2)), model={"name": "old", "fingerprint": "0" * 32}))
    with pytest.raises(InputError, match="another model") as caught:
        run_ray(tmp_path / "old", spawned_models, 1)
    assert "\n" not in str(caught.value)
