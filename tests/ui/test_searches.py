"""Searches for a count over the API: what they deliver, that they stop, go on, and can be made again."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gradio_client import handle_file
from PIL import Image
from support.sampling import sample
from support.slow_steps import slow_steps
from support.waiting import wait_until

from t2i_tools.images.metadata import read_settings

from .conftest import QUICK

SEARCH = {**QUICK, "budget": 4, "seed": 5, "counts": {"cat": 3}, "keep_tokens": True}


def again(client, file):
    """The file that the settings of another make on the Generate page."""
    back, _ = client.predict(image=handle_file(file), api_name="/settings")
    ((made,), _) = client.predict(**back, api_name="/generate")
    return Path(made)


def pixels(content):
    return Image.open(io.BytesIO(content)).tobytes()


@pytest.mark.parametrize(
    "method", sample(["plain", "best_of", "token", "noise", "token+noise"], ("best_of", "token+noise"))
)
def test_the_generate_page_makes_the_picture_of_a_search_again(client, method):
    (file,), status = client.predict(**SEARCH, method=method, api_name="/count")
    (row,) = status["images"]
    assert row["method"] == method
    assert len(row["tokens"]) == ("token" in method)
    assert ("noise" in read_settings(file)) == ("noise" in method)
    made = again(client, file)
    assert pixels(made.read_bytes()) == pixels(Path(file).read_bytes())
    assert again(client, made).read_bytes() == made.read_bytes()


def test_beside_the_plain_picture_and_the_best_of_others(client):
    files, status = client.predict(**SEARCH, method="noise", compare=True, number=2, api_name="/count")
    assert [row["method"] for row in status["images"]] == ["noise", "noise", "plain", "plain", "best_of", "best_of"]
    assert len(files) == 6
    plain, _ = client.predict(prompt="a photo of three cats", seed=5, **QUICK, api_name="/generate")
    assert pixels(Path(files[2]).read_bytes()) == pixels(Path(plain[0]).read_bytes())


def test_two_classes_at_once(client):
    counts = {"cat": 2, "dog": 1}
    (file,), status = client.predict(**{**SEARCH, "counts": counts}, method="token", api_name="/count")
    (row,) = status["images"]
    assert row["judged"] == "cat: 0, dog: 0"  # of noise
    assert [name.split("-")[0] for name in row["tokens"]] == ["cat", "dog"]
    settings = read_settings(file)
    assert settings["prompt"] == "a photo of <count-2-cat> cats and <count-1-dog> dog"
    assert pixels(again(client, file).read_bytes()) == pixels(Path(file).read_bytes())


def test_a_token_that_did_not_make_it_exact_is_not_kept(client):
    asked = {**SEARCH, "keep_tokens": False, "method": "token"}
    _, status = client.predict(**asked, api_name="/count")
    assert [(row["exact"], row["tokens"]) for row in status["images"]] == [(False, [])]


def test_a_token_is_kept_under_the_name_that_is_given(client):
    names = []
    for _ in range(2):
        _, status = client.predict(**SEARCH, method="token", token_name="My cats!", api_name="/count")
        names += [name for row in status["images"] for name in row["tokens"]]
    assert names == ["my-cats", "my-cats-2"]  # the first is not written over
    asked = {**SEARCH, "counts": {"cat": 2, "dog": 1}}
    _, status = client.predict(**asked, method="token", token_name="My cats!", api_name="/count")
    assert status["images"][0]["tokens"] == ["my-cats-cat", "my-cats-dog"]


def test_until_so_many_are_exact(client, monkeypatch):
    """The detector sees one cat in all pictures, so that each is exact at once; and three never."""
    from t2i_tools.bundled import load_bundled_counter
    from t2i_tools.detectors import Detections

    one = Detections(["cat"], torch.tensor([[0.0, 0.0, 9.0, 9.0]]), torch.tensor([0.9]))
    monkeypatch.setattr(type(load_bundled_counter()), "detect", lambda self, images, label=None: [one for _ in images])
    asked = {**SEARCH, "until_exact": True, "number": 2, "method": "best_of"}
    _, status = client.predict(**{**asked, "counts": {"cat": 1}}, api_name="/count")
    assert [row["exact"] for row in status["images"]] == [True, True]
    _, status = client.predict(**asked, api_name="/count")
    assert not any(row["exact"] for row in status["images"])
    assert sum(row["passes"] for row in status["images"]) <= 2 * 4 * 4  # number, budget, passes of a picture


def test_stop_keeps_the_best(client, server):
    client.predict(prompt="a dog", **QUICK, api_name="/generate")
    with slow_steps(server[1]):
        job = client.submit(**{**SEARCH, "budget": 50}, method="best_of", api_name="/count")
        wait_until(lambda: job.outputs() and "trial 2 " in job.outputs()[-1][1].get("note", ""))
        assert client.predict(job=job.outputs()[-1][1]["job"], api_name="/cancel") == {"cancelled": 1}
        files, status = job.result(timeout=120)
    assert status["state"] == "cancelled"
    (row,) = status["images"]
    assert row["stopped"] == "interrupted"
    assert 2 <= row["steps"] < 50
    assert read_settings(files[0])["seed"] == row["seed"]


@pytest.mark.slow
def test_a_search_goes_on_after_the_server_has_ended(options, tmp_path):
    """A second server takes up a search whose first one ended in the middle, to the same bytes as a whole one."""
    from t2i_tools.ui.service import Service

    def begun(folder):
        service = Service(replace(options, output=tmp_path / folder))
        service.worker.start()
        return service

    made = {}
    for name in ("whole", "broken"):
        service = begun(name)
        job = service.submit("me", "count", {**SEARCH, "method": "token", "number": 2, "budget": 20})
        if name == "broken":
            wait_until(lambda: (progress := service.progress(job)) and progress.events, every=0.005)  # noqa: B023
            service.close()
            assert list(service.output.glob("files/*/token/.search-*.safetensors"))
            service = begun(name)
        wait_until(lambda: not service.jobs.get(job.id).open)  # noqa: B023
        made[name] = [pixels(path.read_bytes()) for path in service.paths(service.jobs.get(job.id))]
        service.close()
    assert len(made["whole"]) == 2
    assert made["broken"] == made["whole"]
