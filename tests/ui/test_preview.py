"""What the page shows of an image while it is made."""

import numpy as np
import pytest

pytest.importorskip("gradio")

from support import pipezoo
from support.shared import copied, shared

from t2i_tools.ui import preview


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(preview, "PAUSE", 0.0)
    monkeypatch.setattr(preview, "SHARE", 1e9)


@pytest.mark.parametrize("name", ["stable_diffusion", "flux", "z_image"])
def test_the_last_step_shows_the_first_image_guidance_included(name, every_step):
    pipe, shown = shared(name), []
    with preview.previewed(pipe, shown.append):
        own = pipezoo.call(pipe, height=64, width=96, guidance_scale=4.0, output_type="pt")
    assert len(shown) == 3
    pixels = 255 * own[0].float().permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(shown[-1]) - pixels).max() <= 1
    assert "step" not in vars(pipe.scheduler) and "prepare_latents" not in vars(pipe)


def test_it_is_shown_now_and_then():
    pipe, shown = shared("stable_diffusion"), []
    with preview.previewed(pipe, shown.append):
        pipezoo.call(pipe, num_inference_steps=8)
    assert len(shown) < 8


def test_an_image_that_the_safety_checker_flags_is_not_shown(every_step, monkeypatch):
    pipe, shown = shared("stable_diffusion"), []
    for flags, number in (([True], 0), ([False], 3)):
        monkeypatch.setattr(preview, "flagged", lambda pipe, images, flags=flags: flags)
        with preview.previewed(pipe, shown.append):
            pipezoo.call(pipe)
        assert len(shown) == number


def test_a_model_that_cannot_be_read_is_drawn_without(every_step):
    pipe, shown = shared("bria_fibo"), []
    with preview.previewed(pipe, shown.append):
        pipezoo.call(pipe)
    assert shown == []


def test_a_preview_that_fails_is_logged_once_and_harms_no_image(every_step, monkeypatch, caplog):
    pipe, shown = copied("stable_diffusion"), []

    def fail(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(pipe.vae, "decode", fail)
    with preview.previewed(pipe, shown.append):
        pipezoo.call(pipe)
    assert shown == [] and len(caplog.records) == 1


def test_an_error_of_the_call_leaves_nothing(every_step):
    pipe = shared("flux")
    with pytest.raises(ValueError, match="broken"), preview.previewed(pipe, lambda image: None):
        pipezoo.call(pipe)
        raise ValueError("broken")
    assert "step" not in vars(pipe.scheduler) and "prepare_latents" not in vars(pipe)
