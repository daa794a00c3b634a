"""One client's many or large requests leave the others served."""

import threading
import time
from functools import partial
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from PIL import Image
from support.growth import cpu_seconds
from support.slow_steps import slow_steps
from support.waiting import wait_until

from t2i_tools.errors import InputError
from t2i_tools.evaluation.grid import grid_cells, parse_axis
from t2i_tools.ui.jobs.generate import GenerateValues

from .conftest import QUICK

CALLS = 130


def join(url, values, session, function):
    """Start a call as the page does, and never listen to what comes of it."""
    data = [values.get(name, field.get_default(call_default_factory=True)) for name, field in FIELDS.items()]
    return {"fn_index": function, "data": data, "session_hash": session}


FIELDS = GenerateValues.model_fields


def test_many_calls_of_one_client_do_not_hide_anothers(server, client, monkeypatch):
    url, service = server
    client.predict(prompt="a dog", **QUICK, api_name="/generate")  # the model is open
    monkeypatch.setattr("t2i_tools.ui.job_context.SLICE", 1.0)
    other = Client(url, verbose=False, httpx_kwargs={"timeout": 120})
    with slow_steps(service, 0.02), httpx.Client(base_url=url, timeout=60) as http:
        functions = http.get("config").json()["dependencies"]
        (function,) = (one["id"] for one in functions if one["api_name"] == "generate")
        values = {"prompt": "a cat", "model": "tiny", "size": "64x64", "steps": 30, "number": 6}
        for _ in range(CALLS):
            http.post("gradio_api/queue/join", json=join(url, values, "greedy", function)).raise_for_status()
        of_greedy = partial(service.jobs.of, "client greedy", most=CALLS)
        wait_until(lambda: len(of_greedy()) == service.options.limits.open_jobs)
        job = other.submit(prompt="a dog", **QUICK, api_name="/generate")
        told = wait_until(lambda: job.outputs() and job.outputs()[0][1], every=0.005)
        ended_before_answer = sum(not one.open for one in of_greedy())
        _, status = job.result(timeout=300)
        ended_before_image = sum(not one.open for one in of_greedy())
    service.cancel_all("client greedy")
    assert told["state"] in ("queued", "running")
    assert told.get("ahead", 0) <= 1  # the running one, and not all that came earlier
    assert status["state"] == "done"
    assert (ended_before_answer, ended_before_image) <= (0, 1)  # of jobs that take seven slices each


@pytest.mark.slow
def test_a_job_that_makes_room_ends_as_one_that_did_not(server, client, monkeypatch):
    """Paused after each image for others, it makes every image once, to the same bytes."""
    service = server[1]
    values = {"prompt": "a star", "seed": 40, "number": 5, **QUICK}
    whole, _ = client.predict(**values, api_name="/generate")
    monkeypatch.setattr("t2i_tools.ui.job_context.SLICE", 0.0)
    pauses, others = [], iter([True, False] * 50)
    monkeypatch.setattr(service.jobs, "others_wait", lambda job: next(others))
    put_back = service.jobs.put_back
    monkeypatch.setattr(service.jobs, "put_back", lambda *args: pauses.append(1) or put_back(*args))
    with slow_steps(service, 0.2):  # longer than the model takes to be ready, which a job may always have
        files, status = client.predict(**values, api_name="/generate")
    assert status["state"] == "done"
    assert len(pauses) >= 2
    assert [Path(file).read_bytes() for file in files] == [Path(file).read_bytes() for file in whole]
    search = {**QUICK, "budget": 6, "seed": 5, "counts": {"cat": 3}, "method": "token", "number": 2}
    paused, _ = client.predict(**search, api_name="/count")
    monkeypatch.undo()
    whole, _ = client.predict(**search, api_name="/count")
    assert [Image.open(file).tobytes() for file in paused] == [Image.open(file).tobytes() for file in whole]


def test_products_are_counted_before_they_are_made():
    axes = [parse_axis(f"{name}=" + ",".join(map(str, range(1, 301)))) for name in ("seed", "steps", "guidance")]

    def refused():
        with pytest.raises(InputError, match="a grid of 27000000 cells is too large"):
            grid_cells("x", axes, {})

    assert cpu_seconds(refused) < 0.1


LARGE = [
    ("grid", {"prompt": "x", "axes": [f"{n}=" + ",".join(map(str, range(1, 1001))) for n in ("seed", "steps")]}),
    ("grid", {"prompt": "x {a} {b} {c}", "axes": [f"{n}=" + ",".join("y" * 4000) for n in "abc"]}),
    ("grid", {"prompt": "x", "axes": ["steps=1,2"] * 100}),
    ("evaluate", {"sizes": ["64x64"] * 5000}),
    ("evaluate", {"prompts": [{"prompt": "x", "label": "cat", "count": 1}] * 2000, "sizes": ["64x64"] * 30}),
    ("evaluate", {"prompts": [{"prompt": "x", "label": "cat", "count": 1}] * 20_000}),
    ("probe", {"prompts": ["x"] * 100_000}),
    ("probe", {"prompts": ["x"] * 4_000_000}),
    ("generate", {"prompt": "x", "loras": ["a:1"] * 100_000}),
    ("generate", {"prompt": "x", "prompt ": "x" * 2**20}),
]


@pytest.mark.parametrize("path", ["call/v2/probe", "run/upload", "queue/join"])
def test_a_request_of_too_many_values_is_refused_before_it_is_read(server, path):
    body = b'{"data": [' + b"1," * 400_000 + b"1]}"
    posted = httpx.post(f"{server[0]}gradio_api/{path}", content=body, headers={"content-type": "application/json"})
    assert posted.status_code == 413
    assert posted.json()["detail"] == "the request is too large: send at most 20 MiB with 400,000 values"


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(("endpoint", "values"), LARGE, ids=[f"{name}-{i}" for i, (name, _) in enumerate(LARGE)])
def test_a_large_request_stops_nobody(server, endpoint, values):
    """While it is refused, another client's page keeps coming.

    Seconds are processor time of this process, its server included, so that what else a machine does adds none. A
    server that waits takes none either, so the client gives up on a page after a while.
    """
    url, usual, slowest, ended = server[0], [], [], threading.Event()

    def other():
        with httpx.Client(base_url=url, timeout=20) as http:
            usual.append(max(seconds(http) for _ in range(5)))
            while not (slowest and ended.is_set()):
                slowest.append(seconds(http))

    def seconds(http):
        start = time.process_time()
        http.get("theme.css")
        return time.process_time() - start

    thread = threading.Thread(target=other)
    thread.start()
    wait_until(lambda: usual)
    try:
        with httpx.Client(base_url=url, timeout=60) as http:
            posted = http.post(f"gradio_api/call/v2/{endpoint}", json=values)
            if posted.status_code == 200:
                text = http.get(f"gradio_api/call/v2/{endpoint}/{posted.json()['event_id']}").text
                assert "event: error" in text
    finally:
        ended.set()
        thread.join()
    assert max(slowest) < 2.0 + 5 * usual[0]  # 0.5 s and less on a machine that does nothing else
