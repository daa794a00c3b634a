"""kill -9 at random moments of every verb that fills a folder, then one run to its end: the files of an unbroken run.

The lives of a verb are children of one process that has imported everything, so that a kill seldom hits an import.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec

import pytest

from t2i_tools.evaluation.rows_io import read_log

LIVES = """
import json, os, random, signal, sys, time
import diffusers, transformers, torch
import t2i_tools.evaluation.runs.runner, t2i_tools.evaluation.reports.report, t2i_tools.evaluation.grid
import t2i_tools.counting.count_run, t2i_tools.evaluation.runs.engines, scipy.stats
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModel
from t2i_tools.cli import main

torch.set_num_threads(1)
broken, folder, kills, seed, victims = json.loads(sys.argv[1])

def life(arguments):
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        try:
            main(arguments)
        except SystemExit as left:
            os._exit(left.code or 0)
        finally:
            os._exit(99)
    return child

def ends(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def below(parent):
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            status = open(f"/proc/{name}/stat").read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(status[1]) == parent:
            yield int(name)

start = time.monotonic()
assert ends(life([*broken, f"{folder}-whole"])) == 0, "the unbroken run failed"
length, killed, chance, rounds = time.monotonic() - start, 0, random.Random(seed), 0
while killed < kills:
    child = life([*broken, f"{folder}-{rounds}"])
    time.sleep(chance.uniform(0, length))
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
        assert status == 0, "a run that was not killed failed"
        rounds += 1
        continue
    workers = list(below(child)) if victims == "workers" and killed % 2 else []
    os.kill(chance.choice(workers) if workers else child, signal.SIGKILL)
    ends(child)
    killed += 1
assert ends(life([*broken, f"{folder}-{rounds}"])) == 0, "the last run failed"
print(killed, rounds + 1)
"""


@dataclass
class Verb:
    """What is killed. arguments: behind `t2i`, but for --output. victims: "workers": every other kill is one's."""

    arguments: list
    kills: int
    victims: str = "process"


IMAGE = ("--size", "16x16", "--steps", "1", "--seed", "5", "--quiet")
GRID = ("grid", "two {color} cats", "--axis", "color=red,blue,green", "--axis", "guidance=1,2,3,4")


def verbs(model, judge, prompts, shards):
    """Name -> verb."""
    tiny = ["--model", model, "--device", "cpu"]
    evaluate = ["evaluate", "counts", *tiny, "--judge", judge, "--prompts", prompts, "--batch", "2", "--threads", "1"]
    evaluate += ["--sizes", "16x16", "--steps", "1", "--clip", "none", "--quiet"]
    found = {
        "evaluate": Verb(evaluate, 12),
        "grid": Verb([*GRID, *tiny, *IMAGE, "--judge", judge, "--label", "cat"], 10),
        "count": Verb(["count", "cats", "2", *tiny, *IMAGE, "--counter", judge, "--budget", "6", "-n", "3"], 10),
        "sizes": Verb(["sizes", "two cats", *tiny, "--sizes", "16x16,16x24,24x24,32x16", *IMAGE[2:]], 8),
        "merge": Verb(["evaluate", "merge", *shards, "--quiet"], 5),
        "workers": Verb([*evaluate, "--workers", "3"], 5, "workers"),
    }
    if find_spec("ray"):
        found["ray"] = Verb([*evaluate, "--workers", "2", "--engine", "ray"], 5)
    return found


NAMES = ("evaluate", "grid", "count", "sizes", "merge", "workers", "ray")


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    from support.heatmaps import save_heatmap

    return save_heatmap(tmp_path_factory.mktemp("judge") / "model.safetensors")


def run(arguments):
    """`t2i` in a process of its own."""
    command = [sys.executable, "-m", "t2i_tools", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def tree(folder):
    """Path -> content of all that two runs must agree in: of times and folders' own names nothing."""
    files = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in (".lock", "timings.jsonl"):
            content = path.read_bytes()
            if path.name == "count.json":
                content = without_seconds(json.loads(content))
            files[str(path.relative_to(folder))] = content
    return files


def without_seconds(value):
    """The same without what a clock has said."""
    if isinstance(value, dict):
        return {name: without_seconds(one) for name, one in value.items() if "seconds" not in name}
    return [without_seconds(one) for one in value] if isinstance(value, list) else value


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not hasattr(os, "fork") or not os.path.isdir("/proc"), reason="needs fork and /proc")
@pytest.mark.parametrize("name", NAMES)
def test_killed_at_random_moments(name, tiny_folder, judge, tmp_path):
    rows = [{"prompt": f"{1 + i % 3} cats, {i}", "class": "cat", "count": 1 + i % 3} for i in range(24)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shards = [tmp_path / "one", tmp_path / "two"]
    known = verbs(tiny_folder, judge, tmp_path / "p.jsonl", shards)
    if name not in known:
        pytest.skip("ray is not installed")
    if name == "merge":
        for place, shard in enumerate(shards, 1):
            done = run([*known["evaluate"].arguments, "--shard", f"{place}/2", "--output", shard])
            assert done.returncode == 0, done.stderr
    verb = known[name]
    order = json.dumps([[*map(str, verb.arguments), "--output"], str(tmp_path / name), verb.kills, 1, verb.victims])
    lives = subprocess.run(
        [sys.executable, "-c", LIVES, order], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert lives.returncode == 0, lives.stderr
    kills, rounds = map(int, lives.stdout.split())
    print(f"{name}: {kills} kills of {rounds} runs")
    whole = tree(tmp_path / f"{name}-whole")
    for place in range(rounds):
        broken = tree(tmp_path / f"{name}-{place}")
        assert sorted(broken) == sorted(whole)
        assert [path for path in broken if broken[path] != whole[path]] == []
        if name in ("evaluate", "workers", "ray"):
            notes = read_log(tmp_path / f"{name}-{place}" / "timings.jsonl")
            done = [(note["stage"], note["batch"]) for note in notes]
            assert len(set(done)) == 36  # twelve batches in three stages
            assert len(done) - 36 <= 3 * kills  # what was in work when it was killed
