"""The endpoints over HTTP, as gradio_client calls them."""

import itertools
import threading
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from support.sampling import sample
from support.slow_steps import slow_steps
from support.waiting import wait_until

from t2i_tools.images.metadata import read_settings

from .conftest import QUICK, another_server


def test_generate_gives_files_with_their_settings(client):
    files, status = client.predict(prompt="two cats", seed=5, number=2, **QUICK, api_name="/generate")
    assert status["state"] == "done"
    assert [read_settings(file)["seed"] for file in files] == [5, 6]
    assert [read_settings(file) for file in files] == status["settings"]


def test_progress_is_told_step_by_step(client):
    job = client.submit(prompt="a dog", model="tiny", steps=6, api_name="/generate")
    job.result()
    told = [status for _, status in job.outputs()]
    assert told[0]["state"] in ("queued", "running")
    assert told[-1]["state"] == "done"
    done = [status["done"] for status in told if status["state"] == "running"]
    assert done == sorted(done)


def test_unknown_parameters_are_refused(server, client):
    with pytest.raises(TypeError, match="stepz"):
        client.predict(prompt="x", stepz=3, api_name="/generate")
    answer = httpx.post(f"{server[0]}gradio_api/call/v2/generate", json={"prompt": "x", "stepz": 3})
    assert answer.status_code == 422
    assert "stepz" in answer.json()["detail"]


def test_errors_are_one_line(client):
    with pytest.raises(AppError, match="^the prompt is empty: say what to draw$"):
        client.predict(prompt="", api_name="/generate")
    with pytest.raises(AppError, match="^unknown scheduler 'fast': this model takes"):
        client.predict(prompt="x", scheduler="fast", api_name="/generate")


@pytest.mark.parametrize("all_of_them", [False, True])
def test_cancel_acts_within_a_step(client, server, all_of_them):
    client.predict(prompt="a dog", **QUICK, api_name="/generate")
    with slow_steps(server[1]) as told:
        job = client.submit(prompt="a dog", model="tiny", steps=60, api_name="/generate")
        wait_until(lambda: job.outputs() and job.outputs()[-1][1].get("done"))
        name, progress = job.outputs()[-1][1]["job"], server[1].worker._context.progress
        answer = client.predict(job="" if all_of_them else name, api_name="/cancel")
        assert answer == {"cancelled": 1}
        files, status = job.result(timeout=120)
    assert (status["state"], files) == ("cancelled", [])
    assert progress.done <= told[0] + 1 < 60


def test_cancel_of_a_job_that_waits(client):
    first = client.submit(prompt="a dog", model="tiny", steps=60, api_name="/generate")
    wait_until(first.outputs)
    second = client.submit(prompt="a cat", model="tiny", steps=60, api_name="/generate")
    wait_until(second.outputs)
    assert second.outputs()[0][1]["ahead"] >= 1
    client.predict(job=second.outputs()[0][1]["job"], api_name="/cancel")
    assert second.result(timeout=120)[1]["state"] == "cancelled"
    assert first.outputs()[-1][1]["state"] != "cancelled"
    client.predict(api_name="/cancel")


def test_another_client_cancels_nothing_of_mine(client, server):
    job = client.submit(prompt="a dog", **QUICK, api_name="/generate")
    assert Client(server[0], verbose=False, httpx_kwargs={"timeout": 120}).predict(api_name="/cancel") == {
        "cancelled": 0
    }
    assert job.result()[1]["state"] == "done"


def test_a_job_can_be_asked_for_later(client, server):
    name = client.predict(prompt="a fish", **QUICK, api_name="/generate")[1]["job"]
    files, status = Client(server[0], verbose=False, httpx_kwargs={"timeout": 120}).predict(
        job=name, api_name="/status"
    )
    assert status["state"] == "done"
    assert len(files) == 1


VARIANTS = {
    "plain": {},
    "odd size": {"size": "70x50"},
    "negative": {"negative": "dogs", "guidance": 4.5},
    "scheduler": {"scheduler": "euler"},
    "entropy scaling": {"entropy_scaling": "on", "size": "96x64"},
    "large seed": {"seed": 2**63 - 1},
    "two passes": {"two_pass": True, "size": "96x96", "steps": 4},
    "deep shrink": {"deep_shrink": True, "deep_shrink_share": 0.75, "size": "96x96", "steps": 4},
    "long prompt": {"prompt": "three stars and " * 40, "long_prompts": "chunk", "guidance": 2.0},
    "stretched": {"prompt": "three stars and " * 40, "long_prompts": "stretch", "negative": "cats"},
    "Long-CLIP": {"prompt": "three stars and " * 40, "long_prompts": "stretch", "long_clip": "long"},
    "VAE and LoRA": {"vae": "loud", "loras": ["stripes:0.5"]},
    "from an image": {"image": True, "strength": 0.7, "steps": 4},
    "textual inversion": {"prompt": "three stars in MyStyle", "embeddings": ["mystyle"]},
    "textual inversion from an image": {"prompt": "a mystyle star", "embeddings": ["mystyle"], "image": True},
    "count token": {"prompt": "a photo of {count} stars", "count_tokens": ["star-3"]},
    "two count tokens": {"prompt": "{star} stars, {cat} cats", "count_tokens": ["star-3", "cat-2"]},
    "bundled model": {"model": "bundled", "entropy_scaling": "on"},
}


# Those that another variant tries as well.
ALIKE = (
    "plain",
    "negative",
    "large seed",
    "long prompt",
    "stretched",
    "count token",
    "textual inversion from an image",
)


def round_trip(client, values, start):
    """The bytes of an image, and of the one that its file's settings make."""
    values = {"prompt": "three stars", "seed": 7, **QUICK, **values}
    if values.get("image"):
        values["image"] = handle_file(start)
    (first,), _ = client.predict(**values, api_name="/generate")
    back, notes = client.predict(image=handle_file(first), api_name="/settings")
    assert notes == []
    assert (back["seed"], back["model"]) == (values["seed"], values["model"])
    (second,), _ = client.predict(**back, api_name="/generate")
    return Path(first).read_bytes(), Path(second).read_bytes()


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A picture to start from."""
    path = tmp_path_factory.mktemp("start") / "start.png"
    Image.effect_mandelbrot((96, 64), (-2, -1.5, 1, 1.5), 20).convert("RGB").save(path)
    return path


def test_what_does_not_act_of_another_tool_s_image_is_said(client, tmp_path):
    text = "a star <lora:detail:0.8>\nSteps: 4, Sampler: Euler a, CFG scale: 3, Seed: 5, Size: 64x64, Clip skip: 2"
    info = PngInfo()
    info.add_text("parameters", text)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png", pnginfo=info)
    values, notes = client.predict(image=handle_file(tmp_path / "a.png"), api_name="/settings")
    assert (values["seed"], values["steps"], values["guidance"]) == (5, 4, 3.0)
    assert any("detail is not here" in note for note in notes)
    assert any("Clip skip" in note for note in notes)


@pytest.mark.parametrize("variant", sample(VARIANTS, lambda variant: variant not in ALIKE))
def test_a_png_makes_its_own_bytes_again(client, tokens, variant, start):
    first, second = round_trip(client, VARIANTS[variant], start)
    assert first == second


@pytest.mark.slow  # 192 combinations
def test_every_combination_of_plugins_makes_its_own_bytes_again(client, tokens, start):
    stretch = {"long_prompts": "stretch"}
    choices = [
        [{}, {"entropy_scaling": "on"}],
        [{}, {"long_prompts": "chunk"}, stretch, stretch | {"long_clip": "long"}],
        [{}, {"count_tokens": ["star-3"]}],
        [{}, {"two_pass": True}, {"image": True}],
        [{}, {"vae": "loud"}],
        [{}, {"loras": ["stripes:0.5"]}],
    ]
    seen = {}
    for parts in itertools.product(*choices):
        values = {name: value for part in parts for name, value in part.items()}
        prompt = ("{count} stars, " if "count_tokens" in values else "") + "three cats and " * 40
        first, second = round_trip(client, {"prompt": prompt, "size": "96x80", "steps": 3, **values}, start)
        assert first == second, values
        seen[first] = values
    assert len(seen) == 192  # every one acts, so that no two images are the same


def test_side_by_side_is_two_files(client):
    files, status = client.predict(
        prompt="a cat", entropy_scaling="compare", seed=1, model="tiny", size="96x96", steps=2, api_name="/generate"
    )
    assert ["entropy_scaling" in settings for settings in status["settings"]] == [False, True]
    assert Path(files[0]).read_bytes() != Path(files[1]).read_bytes()


@pytest.mark.slow
def test_eight_clients_at_once_get_their_own(server):
    answers = {}

    def ask(index):
        mine = Client(server[0], verbose=False, httpx_kwargs={"timeout": 120})
        values = {"prompt": f"client {index}", "seed": 100 * index, "number": 5, "model": "tiny", "steps": 1}
        answers[index] = mine.predict(**values, api_name="/generate")[0]

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = set()
    for index in range(8):
        seen |= {Path(file).read_bytes() for file in answers[index]}
        told = [read_settings(file) for file in answers[index]]
        assert [(one["prompt"], one["seed"]) for one in told] == [
            (f"client {index}", 100 * index + i) for i in range(5)
        ]
    assert len(seen) == 40


def test_binds_to_this_machine_alone(server):
    assert server[0].startswith("http://127.0.0.1:")


def test_a_login_is_asked_for_and_keeps_jobs_apart(options, tmp_path):
    logins = (("alice", "a:b"), ("bob", "c"))
    patient = {"verbose": False, "httpx_kwargs": {"timeout": 120}}
    with another_server(replace(options, output=tmp_path, auth=logins)) as (url, service):
        assert httpx.get(f"{url}config").status_code == 401
        with pytest.raises(ValueError, match="Could not login"):
            Client(url, auth=("alice", "wrong"), **patient)
        alice, bob = (Client(url, auth=login, **patient) for login in logins)
        alice.predict(prompt="a cat", **QUICK, api_name="/generate")
        assert [job.owner for job in service.jobs.of("user alice")] == ["user alice"]
        assert service.jobs.of("user bob") == []
        waiting = alice.submit(prompt="a cat", model="tiny", steps=60, number=6, api_name="/generate")
        wait_until(waiting.outputs)
        assert bob.predict(api_name="/cancel") == {"cancelled": 0}
        assert alice.predict(api_name="/cancel") == {"cancelled": 1}
