"""kill -9 at random moments, then one run to the end: the bytes of an unbroken run."""

import os
import subprocess
import sys

import pytest

from t2i_tools.evaluation.rows_io import read_log
from t2i_tools.evaluation.runs.runner import run_shard
from t2i_tools.evaluation.runs.store import Store

# Opens the models once and forks: a child a life, which ends by kill -9 as long as there are kills left.
LIVES = """
import os, random, signal, sys, time
from dataclasses import replace
import torch
from t2i_tools.workflows.detectors import openers_of
from t2i_tools.workflows.open_model import ModelOptions
from t2i_tools.evaluation.runs.runner import run_shard

folder, model, judge, kills = sys.argv[1:]
torch.set_num_threads(1)
openers = openers_of(ModelOptions(model=model, device="cpu"), judge, None, (), None)
pipe, judge = openers.pipeline(None), openers.judge(None)
openers = replace(openers, pipeline=lambda _: pipe, judge=lambda _: judge)

def life():
    child = os.fork()
    if child == 0:
        run_shard(folder, openers)
        os._exit(0)
    return child

killed, span, moments = 0, 0.1, random.Random(int(kills))
while killed < int(kills):
    child = life()
    time.sleep(moments.uniform(0, span))
    if os.waitpid(child, os.WNOHANG)[0]:
        break
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    killed += 1
    span = 1.2 * span if moments.random() < 0.5 else span  # slow machines get further in a life, too
if killed == int(kills):
    assert os.waitpid(life(), 0)[1] == 0
print(killed)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("kills", "items"), [(3, 6), pytest.param(20, 60, marks=pytest.mark.slow)])
def test_killed_at_random_moments(start, tiny_models, tiny_folder, judge_file, rows_of, tree, kills, items):
    whole, folder = start(rows_of(items), "whole"), start(rows_of(items))
    run_shard(whole, tiny_models)
    command = [sys.executable, "-c", LIVES, folder, tiny_folder, judge_file, str(kills)]
    lives = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert lives.returncode == 0, lives.stderr
    assert int(lives.stdout) >= min(kills, 3)
    for one in (whole, folder):
        Store(one).write_merged()
    assert tree(folder) == tree(whole)
    notes = [(note["stage"], note["batch"]) for note in read_log(folder / "timings.jsonl")]
    assert len(notes) - len(set(notes)) <= kills  # at most the batch in flight
