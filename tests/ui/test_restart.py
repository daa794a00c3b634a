"""kill -9 of the whole app with ten jobs queued, and a restart: all are done, none twice."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import contextmanager

import pytest
from support.waiting import wait_until


@contextmanager
def app(output, models):
    """(process, url) of `t2i ui`, which is killed at the end."""
    command = [sys.executable, "-m", "t2i_tools.ui", "--output", str(output), "--models", str(models)]
    process = subprocess.Popen([*command, "--model", "tiny"], stdout=subprocess.PIPE, text=True)
    try:
        yield process, re.search(r"http://\S+", process.stdout.readline()).group()
    finally:
        process.kill()
        process.wait()


def images(output):
    return {path: path.stat().st_mtime_ns for path in output.glob("files/0*/*.png")}


def states(output):
    with sqlite3.connect(output / "jobs.sqlite3") as database:
        return database.execute("SELECT state, attempts FROM jobs ORDER BY number").fetchall()


@pytest.mark.slow
def test_all_ten_are_done_and_none_twice(tmp_path, tiny_folder):
    client = pytest.importorskip("gradio_client").Client
    output, models = tmp_path / "out", tmp_path / "models"
    models.mkdir()
    (models / "tiny").symlink_to(tiny_folder)
    with app(output, models) as (first, url):
        asking = client(url, verbose=False)
        for index in range(10):
            asking.submit(prompt=f"job {index}", seed=index, number=2, steps=30, api_name="/generate")
        wait_until(lambda: len(states(output)) == 10 and len(images(output)) >= 3)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    before = images(output)
    assert 3 <= len(before) < 20
    assert "queued" in [state for state, _ in states(output)]
    with app(output, models):
        wait_until(lambda: not {state for state, _ in states(output)} & {"queued", "running"}, every=0.1)
    assert [state for state, _ in states(output)] == ["done"] * 10
    assert sum(attempts for _, attempts in states(output)) <= 11  # one was begun twice
    after = images(output)
    assert len(after) == 20
    assert {path: after[path] for path in before} == before  # what was finished was not made again
    assert not list(output.glob("files/0*/.*.part"))
