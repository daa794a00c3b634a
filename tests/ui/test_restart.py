"""kill -9 with ten jobs queued, and a restart: all are done, none twice."""

import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

SERVER = """
import sys, time
from pathlib import Path
from t2i_tools.ui.desk import Desk
from t2i_tools.ui.options import AppOptions

desk = Desk(AppOptions(output=Path(sys.argv[1]), models=Path(sys.argv[2]), model="tiny"))
desk.worker.start()
for index in range(int(sys.argv[3])):
    desk.submit("me", "generate", {"prompt": f"job {index}", "seed": index, "number": 2, "steps": 8})
print("queued", flush=True)
while any(job.open for job in desk.jobs.of("me")):
    time.sleep(0.05)
desk.close()
"""


def start(output, models, jobs):
    command = [sys.executable, "-c", SERVER, str(output), str(models), str(jobs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def test_all_ten_are_done_and_none_twice(tmp_path, tiny_folder):
    pytest.importorskip("gradio")
    output, models = tmp_path / "out", tmp_path / "models"
    models.mkdir()
    (models / "tiny").symlink_to(tiny_folder)
    first = start(output, models, 10)
    assert first.stdout.readline() == "queued\n"
    while len(list(output.glob("files/*/*.png"))) < 3:
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    before = {path: path.stat().st_mtime_ns for path in output.glob("files/*/*.png")}
    assert 3 <= len(before) < 20
    second = start(output, models, 0)
    assert second.wait(timeout=300) == 0
    rows = sqlite3.connect(output / "jobs.sqlite3").execute("SELECT state, attempts, asked FROM jobs").fetchall()
    assert [state for state, _, _ in rows] == ["done"] * 10
    assert sum(attempts for _, attempts, _ in rows) <= 11  # one was begun twice
    after = {path: path.stat().st_mtime_ns for path in output.glob("files/*/*.png")}
    assert len(after) == 20
    assert {path: after[path] for path in before} == before  # what was finished was not made again
    assert not list(output.glob("files/*/*.part"))
