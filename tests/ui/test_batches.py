"""Evaluations and grids over the API: what is measured, and that the test split is what was claimed before."""

from pathlib import Path

import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from support.slow_steps import slow_steps
from support.waiting import wait_until

from t2i_tools.evaluation.reports.protocol import test_runs as runs_of
from t2i_tools.images.metadata import read_settings

BATCH = {"steps": 1, "counts": "2,3", "number": 2}
PROTOCOL = {"split": "test", "unit": "cell"}


def test_the_test_split_needs_a_protocol_of_its_own(client):
    with pytest.raises(AppError, match="^the test split needs a protocol: write down what is claimed"):
        client.predict(**BATCH, split="test", api_name="/evaluate")
    with pytest.raises(AppError, match="^this protocol is for the split test: choose that split$"):
        client.predict(**BATCH, protocol=PROTOCOL, api_name="/evaluate")


def test_a_run_on_the_test_split_is_logged_once(client, server):
    files, status = client.predict(**BATCH, split="test", protocol=PROTOCOL, api_name="/evaluate")
    assert status["state"] == "done"
    again, status = client.predict(**BATCH, split="test", protocol=PROTOCOL, api_name="/evaluate")
    (protocol,) = (server[1].output / "protocols").glob("*.json")
    assert len(runs_of(protocol)) == 1  # the second went on with the first
    report = next(Path(file).read_text() for file in again if file.endswith(".md"))
    assert "split test" in report
    assert "test split was run 1 time." in report


def test_clip_scores_only_where_it_is_asked_for(client):
    rows, scores = [{"prompt": "a cat", "label": "cat", "count": 1}], {}
    for clip in (None, "bundled", "none"):
        values = {"prompts": rows, "model": "tiny", "steps": 1, "clip": clip, "name": f"clip-{clip}"}
        files, _ = client.predict(**values, api_name="/evaluate")
        report = next(Path(file).read_text() for file in files if file.endswith(".md"))
        scores[clip] = "clip: " in report
    assert scores == {None: False, "bundled": True, "none": False}  # the bundled CLIP knows the bundled model's words


def test_searches_are_steered_by_one_detector_and_judged_by_another(client, server):
    asked = {"counts": "2", "number": 1, "steps": 1, "methods": ["plain", "best_of"], "clip": "none"}
    refused = [
        ({"methods": ["plain"], "budget": 2}, "budget does nothing with methods plain: it goes with best_of"),
        ({"methods": ["plain"], "detector": "bundled_counter"}, "detector does nothing with methods plain"),
        ({"detector": "bundled_judge"}, "unknown detector 'bundled_judge'"),
        ({"budget": 1000}, "budget 1000: this server allows up to 100"),
        ({"budget": 0}, "budget: 0 is too small"),
    ]
    for given, says in refused:
        with pytest.raises(AppError, match=says):
            client.predict(**asked | given, api_name="/evaluate")
    files, status = client.predict(**asked, budget=2, api_name="/evaluate")
    assert [one["name"] for one in status["exact"]] == ["plain", "best_of"]
    report = next(Path(file).read_text() for file in files if file.endswith(".md"))
    assert "Searches were steered by bundled_counter (" in report and "at most 2 plain images' worth" in report


def test_a_search_that_is_cancelled_goes_on_with_the_next_start(client, server):
    """Half a search, which a count job would deliver, is no result of a method."""
    rows = [{"prompt": "nine cats", "label": "cat", "count": 9}]
    asked = {"prompts": rows, "model": "tiny", "methods": ["best_of"], "budget": 30, "steps": 1, "name": "ends"}
    service = server[1]
    client.predict(prompt="a dog", model="tiny", size="64x64", steps=1, api_name="/generate")  # opens it
    with slow_steps(service):
        job = client.submit(**asked, api_name="/evaluate")
        wait_until(lambda: job.outputs())
        name = job.outputs()[-1][1]["job"]
        wait_until(lambda: (progress := service.progress(service.jobs.get(name))) and progress.preview)  # a first trial
        client.predict(job=name, api_name="/cancel")
        assert job.result(timeout=120)[1]["state"] == "cancelled"
    (folder,) = (service.output / "files").glob("evaluation-*-ends")
    assert not list(folder.glob("generate/*"))
    _, status = client.predict(**asked, api_name="/evaluate")
    assert (status["state"], [one["name"] for one in status["exact"]]) == ("done", ["best_of"])


def test_an_evaluation_without_searches_has_the_name_that_it_always_had():
    """By it the folder of an earlier one is found, so that it goes on."""
    from t2i_tools.ui.jobs.evaluate import EvaluateValues

    planned = [len(EvaluateValues(model=name, number=10_000).planned()) for name in ("bundled", "another")]
    assert planned[0] < planned[1]  # of the benchmark with COCO's classes
    assert EvaluateValues().usual_name() == "counts-444dccec"
    names = {EvaluateValues(methods=["best_of"], budget=budget).usual_name() for budget in (None, 2, 3)}
    assert len(names) == 3


def test_a_grid_counts_and_scores_every_cell(client):
    axes = ["steps=1,2", "entropy-scaling=off,on"]
    values = {"prompt": "a cat", "axes": axes, "model": "tiny", "size": "96x96", "seed": 1, "label": "cat"}
    files, status = client.predict(**values, clip="bundled", api_name="/grid")
    assert [(cell["steps"], cell["entropy_scaling"]) for cell in status["cells"]] == [
        ("1", "off"),
        ("2", "off"),
        ("1", "on"),
        ("2", "on"),
    ]
    assert all({"cat", "CLIP"} <= cell.keys() for cell in status["cells"])
    assert [[one["counted"] for one in cell] for cell in status["objects"]] == [[c["cat"]] for c in status["cells"]]
    assert len(files) == 5


def test_a_grid_takes_tokens_and_weights_by_name(client, tokens):
    values = {"prompt": "{count} stars", "model": "tiny", "size": "64x64", "seed": 1}
    files, _ = client.predict(**values, axes=["count-token=star-3,cat-2"], api_name="/grid")
    assert [read_settings(file)["count_token"][0]["file"] for file in files[1:]] == [
        f"{name}.safetensors" for name in tokens
    ]
    axes = ["long-clip=long,bundled", "long-prompts=stretch"]
    with pytest.raises(AppError, match="the weights are of"):  # the bundled model's do not fit the tiny one
        client.predict(**{**values, "prompt": "stars"}, axes=axes, api_name="/grid")


def test_an_uploaded_token_is_there_under_its_name(client, tokens, server):
    from t2i_tools.counting import CountToken

    file = server[1].registry.tokens()["star-3"]
    other = server[1].output / "files" / "star-3.safetensors"
    token = CountToken.load(file)
    token.n = 4
    token.save(other)
    assert client.predict(file=handle_file(file), api_name="/token") == "star-3"
    name = client.predict(file=handle_file(other), api_name="/token")
    assert name.startswith("star-3-")  # another of the same name does not take its place
    mine = server[1].registry.of(f"client {client.session_hash}")
    assert CountToken.load(mine.tokens()[name]).n == 4
    assert name not in server[1].registry.of("somebody else").tokens()
    assert CountToken.load(server[1].registry.tokens()["star-3"]).n == 3
    assert client.predict(name=name, api_name="/forget_token") == {"forgotten": name}
    assert name not in mine.tokens()
    with pytest.raises(AppError, match="unknown count token of yours 'cat-2'"):  # it is everybody's
        client.predict(name="cat-2", api_name="/forget_token")
