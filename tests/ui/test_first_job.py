"""What makes first results come soon: little that the browser is told, nothing that a first job has to import."""

import gc
import os
import subprocess
import sys
import weakref
from dataclasses import replace

import pytest

from t2i_tools.errors import InputError
from t2i_tools.ui import app
from t2i_tools.ui.job_panel import LATER, LATER_TICK, JobPanel
from t2i_tools.ui.registry import Choice, Registry
from t2i_tools.ui.service import Service

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
PREPARED = """
import sys, time
from pathlib import Path
from t2i_tools.ui.options import AppOptions
from t2i_tools.ui.service import Service

service = Service(AppOptions(output=Path(sys.argv[1]), device="cpu"))
service.worker.start()
service.worker.wait_for_model()
while service.worker._ahead or not service.worker._cleaned > 0:
    time.sleep(0.1)
before = set(sys.modules)
asked = {"generate": {"prompt": "two cats", "steps": 1}, "probe": {"prompts": ["two cats", "a dog"], "steps": 1}}
for kind, values in asked.items():
    job = service.submit("me", kind, values)
    while service.jobs.get(job.id).open:
        time.sleep(0.1)
    assert service.jobs.get(job.id).state == "done", service.jobs.get(job.id).error
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""

EVENT = """
import sys
from pathlib import Path
from gradio_client import Client
from t2i_tools.ui import AppOptions, launch

page, service = launch(AppOptions(output=Path(sys.argv[1]), device="cpu"), block=False)
Client(page.local_url, verbose=False).predict(prompt="two cats", steps=1, api_name="/generate")
service.close()
print("matplotlib.pyplot" in sys.modules)
"""


@pytest.mark.slow
def test_no_event_imports_pyplot(tmp_path):
    """Gradio asks matplotlib for its backend at each event; where none is set, that imports pyplot: half a second."""
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    ran = subprocess.run([sys.executable, "-c", EVENT, str(tmp_path)], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split()[-1] == "False"


def test_a_model_that_is_frozen_goes_before_another_is_opened(options):
    registry = Registry(options)
    with registry.pipeline(Choice("tiny")) as (pipe, _):
        pipe.itself = pipe  # a circle, which only a collection ends
        model = weakref.ref(pipe.unet)
        del pipe
    gc.freeze()
    try:
        with registry.pipeline(Choice("bundled")):
            assert model() is None
    finally:
        gc.unfreeze()


@pytest.mark.slow
def test_the_first_jobs_import_no_library(tmp_path):
    ran = subprocess.run([sys.executable, "-c", PREPARED, str(tmp_path)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert set(ran.stdout.split()) <= {"t2i_tools", "encodings", "PIL"}  # whose formats are small


def test_a_preparation_that_fails_ends_no_server(options, tmp_path):
    service, done = Service(replace(options, output=tmp_path)), []

    def fail():
        raise OSError("no such library")

    service.worker._ahead = [fail, lambda: done.append(True)]
    service.worker.start()
    service.worker.wait_for_model()
    job = service.submit("me", "generate", {"prompt": "cats", "model": "tiny", "size": "64x64", "steps": 1})
    while service.jobs.get(job.id).open or not done:
        assert service.worker.is_alive()
    assert service.jobs.get(job.id).state == "done"
    service.close()


@pytest.mark.parametrize("chosen", [None, *WAITING])
def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(chosen, options, tmp_path, monkeypatch):
    for name in (*WAITING, "GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "0")  # so that it is as it was afterwards
        monkeypatch.delenv(name)
    if chosen:
        monkeypatch.setenv(chosen, "1")
    said = {}

    def serve(page, service):
        said.update({name: os.environ[name] for name in WAITING if name in os.environ})
        raise InputError("the port is taken")

    monkeypatch.setattr("t2i_tools.ui.server.serve", serve)
    monkeypatch.setattr(app, "build", lambda service: None)
    with pytest.raises(InputError, match="the port is taken"):
        app.launch(replace(options, output=tmp_path))
    assert said == ({chosen: "1"} if chosen else {"OMP_WAIT_POLICY": "PASSIVE"})


def test_torch_is_not_imported_before_it_is_said_how_threads_wait():
    code = "import sys, t2i_tools.cli.ui, t2i_tools.ui.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture
def panels(options, tmp_path, monkeypatch):
    """service, its page, and kind -> panel."""
    found, connect = {}, JobPanel.connect

    def noted(panel, *values, **named):
        found[panel.kind] = panel
        connect(panel, *values, **named)

    monkeypatch.setattr(JobPanel, "connect", noted)
    service = Service(replace(options, output=tmp_path))
    yield service, app.build(service), found
    service.jobs.close()


def test_gradio_is_to_show_the_progress_of_quiet_events_in_one_place(panels):
    _, page, _ = panels
    events = [event for event in page.config["dependencies"] if event["show_progress"] == "hidden"]
    assert len(events) > 50
    assert len({tuple(event["show_progress_on"]) for event in events}) == 1
    assert len(events[0]["show_progress_on"]) == 1


def test_a_look_at_what_is_shown_already_changes_the_status_only(panels, monkeypatch):
    service, _, found = panels
    panel = found["generate"]
    job = service.submit("me", "generate", {"prompt": "cats", "model": "tiny"})
    first = panel.look("me", "", "")
    assert first.keys() == set(panel.outputs)
    assert first[panel.timer]["active"] if isinstance(first[panel.timer], dict) else first[panel.timer].active
    shown = first[panel.shown]
    assert panel.look("me", shown, "").keys() == {panel.status}
    assert panel.look("me", shown, job.id).keys() == set(panel.outputs)  # another view of it
    service.cancel(job)
    ended = panel.look("me", shown, "")
    assert ended.keys() == set(panel.outputs)
    assert panel.look("me", ended[panel.shown], "").keys() == {panel.status}


def test_a_long_job_is_looked_at_less_often(panels, monkeypatch):
    import time

    from t2i_tools.ui.job_context import Progress

    service, _, found = panels
    panel, progress = found["generate"], Progress()
    service.submit("me", "generate", {"prompt": "cats", "model": "tiny"})
    monkeypatch.setattr(service, "progress", lambda job: progress)
    early = panel.look("me", "", "")
    progress.since = time.monotonic() - LATER - 1
    late = panel.look("me", early[panel.shown], "")
    assert late[panel.timer].value == LATER_TICK > early[panel.timer].value
    assert panel.look("me", late[panel.shown], "").keys() == {panel.status}
