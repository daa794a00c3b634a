"""kill -9 at random moments of every verb that fills a folder, then one run to its end: the files of an unbroken run.

The lives of a verb are children of one process that has imported everything, so that a kill seldom hits an import.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.folders import tree, verbs

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


NAMES = ("evaluate", "grid", "count", "sizes", "merge", "workers", "ray", "accelerate")

MOST_SECONDS = 120  # until a run has ended of which a rank was killed; by itself, or it hangs


def kill_processes(verb, folder):
    """Kill what a verb has started at random moments; returns the kills and the runs that it took."""
    order = json.dumps([[*map(str, verb.arguments), "--output"], str(folder), verb.kills, 1, verb.victims])
    lives = subprocess.run(
        [sys.executable, "-c", LIVES, order], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert lives.returncode == 0, lives.stderr
    kills, rounds = map(int, lives.stdout.split())
    return kills, rounds


def kill_ranks(arguments, folder, kills, seed):
    """The same as LIVES for `accelerate launch` of two ranks, where the launcher and one rank are killed in turn.

    Returns the kills, the runs that it took, and how often a working rank saw another one lost, and said what to do.
    """
    chance, said, rounds, killed = random.Random(seed), 0, 0, 0
    with launched(arguments, f"{folder}-whole") as run:
        errors = run.communicate()[1]
    assert run.returncode == 0, errors
    whole = written(f"{folder}-whole")
    while killed < kills:
        with launched(arguments, f"{folder}-{rounds}") as run:
            moment = chance.randint(written(f"{folder}-{rounds}"), whole)  # a busy machine makes seconds mean little
            while written(f"{folder}-{rounds}") < moment and run.poll() is None:
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 1))
            if run.poll() is not None:
                assert run.returncode == 0, "a run that was not killed failed"
                rounds += 1
                continue
            ranks = children(run.pid)
            victim = chance.choice(ranks) if killed % 2 and ranks else run.pid
            told = victim in ranks and all(map(works, ranks))
            os.kill(victim, signal.SIGKILL)
            errors = run.communicate(timeout=MOST_SECONDS)[1]  # the ranks hold the pipe: it closes with the last one
            killed += 1
            lines = [line for line in errors.splitlines() if line.startswith("t2i: ")]
            assert len(lines) == 1 or not told, errors
            assert all(line.endswith("run the same command again to go on") for line in lines), errors
            said += told
    with launched(arguments, f"{folder}-{rounds}") as run:
        errors = run.communicate()[1]
    assert run.returncode == 0, errors
    return killed, rounds + 1, said


def launched(arguments, folder):
    """`accelerate launch` of `t2i`, on the CPU: --cpu would start one process, whatever the number."""
    ranks = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *ranks, "--dynamo_backend", "no", "-m", "t2i_tools"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*launch, *map(str, arguments), "--engine", "accelerate", "--output", folder]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **quiet)


def children(parent):
    """The processes that this one has started."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(place.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


def written(folder):
    """How many files there are below it."""
    return sum(len(files) for _, _, files in os.walk(folder))


def works(rank):
    """Whether it has begun with its batches: it has the folder's lock file open."""
    return any(os.readlink(place).endswith("/.lock") for place in Path(f"/proc/{rank}/fd").iterdir())


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    from support.heatmaps import save_heatmap

    return save_heatmap(tmp_path_factory.mktemp("judge") / "model.safetensors")


def run(arguments):
    """`t2i` in a process of its own."""
    command = [sys.executable, "-m", "t2i_tools", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


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
    if verb.victims == "ranks":
        kills, rounds, said = kill_ranks(verb.arguments, tmp_path / name, verb.kills, 1)
        print(f"{said} ranks said what to do")
    else:
        kills, rounds = kill_processes(verb, tmp_path / name)
    print(f"{name}: {kills} kills of {rounds} runs")
    whole = tree(tmp_path / f"{name}-whole")
    for place in range(rounds):
        broken = tree(tmp_path / f"{name}-{place}")
        assert sorted(broken) == sorted(whole)
        assert [path for path in broken if broken[path] != whole[path]] == []
        if name in ("evaluate", "workers", "ray", "accelerate"):
            notes = read_log(tmp_path / f"{name}-{place}" / "timings.jsonl")
            done = [(note["stage"], note["batch"]) for note in notes]
            assert len(set(done)) == 36  # twelve batches in three stages
            assert len(done) - 36 <= 3 * kills  # what was in work when it was killed


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc")
@pytest.mark.parametrize("part", ["raylet", "gcs_server"])
def test_a_lost_ray_ends_the_run_in_one_line(part, tiny_folder, judge, tmp_path):
    """Without its raylet Ray waits for ever; without its head it ends the process after a minute."""
    pytest.importorskip("ray")
    rows = [{"prompt": f"{i} cats", "class": "cat", "count": i} for i in range(24)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    verb = verbs(tiny_folder, judge, tmp_path / "p.jsonl", [])["ray"]
    command = [sys.executable, "-m", "t2i_tools", *map(str, verb.arguments), "--output", str(tmp_path / "out")]
    with open(tmp_path / "errors", "w") as errors, subprocess.Popen(command, stdout=errors, stderr=errors) as run:
        while not list(tmp_path.glob("out/images/*.png")):
            assert run.poll() is None, (tmp_path / "errors").read_text()
            time.sleep(0.05)
        named = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0] for pid in children(run.pid)}
        (victim,) = (pid for pid, name in named.items() if name.endswith(part.encode()))
        os.kill(victim, signal.SIGKILL)
        assert run.wait(MOST_SECONDS) != 0
    ours = [line for line in (tmp_path / "errors").read_text().splitlines() if line.startswith("t2i: ")]
    assert ours == ["t2i: Ray's processes were lost: run the same command again to go on"]
