"""Nothing leaves a search that the pipeline's own safety checker would have blackened."""

import numpy as np
import pytest
import torch
from support.shared import copied
from transformers import CLIPConfig, CLIPImageProcessor

import t2i_tools as t2i
from t2i_tools.counting.methods import METHODS
from t2i_tools.errors import UnsupportedModelError
from t2i_tools.images.generate import Request, generate_image

SMALL = {"steps": 2, "guidance": 1.0, "size": (64, 64)}


def checker(flags_all):
    """A real one, tiny; whether an image is flagged is decided by its thresholds alone."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    torch.manual_seed(0)
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**text, "image_size": 32, "patch_size": 16}
    model = StableDiffusionSafetyChecker(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    for name in ("concept_embeds_weights", "special_care_embeds_weights"):
        getattr(model, name).data.fill_(-2.0 if flags_all else 2.0)  # no cosine is beyond these
    return model


@pytest.fixture
def guarded(pipe):
    def build(flags_all):
        pipe.register_modules(
            safety_checker=checker(flags_all),
            feature_extractor=CLIPImageProcessor(crop_size={"height": 32, "width": 32}, size={"shortest_edge": 32}),
        )
        return pipe

    return build


def search(pipe, counter, method):
    return t2i.optimize_count(
        pipe, "two {count} cats", 200, counter, label="apple", method=method, grad_steps=2, budget=9, explore=2, **SMALL
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_flagged_image_is_black_in_steps_frames_and_result(guarded, brightness, method):
    pipe = guarded(True)
    assert not np.asarray(generate_image(pipe, Request("two cats", 0, **SMALL))).any()  # what the pipeline does alone
    optimiser = search(pipe, brightness, method)
    for step in optimiser:
        assert not any(np.asarray(image).any() for image in step.images) and step.count == 0
    result = optimiser.result()
    assert not any(np.asarray(image).any() for image in [*result.images, *result.frames])
    assert pipe.safety_checker is not None


@pytest.mark.parametrize("method", ["plain", "bisection", "token", "token+noise"])
def test_a_harmless_image_is_the_one_without_a_checker(guarded, brightness, method):
    with_checker = search(guarded(False), brightness, method).run()
    without = search(copied("stable_diffusion"), brightness, method).run()
    assert with_checker.images[0].tobytes() == without.images[0].tobytes()
    assert np.asarray(without.images[0]).any()


def test_another_vae_is_only_for_the_gradient(guarded, brightness):
    """The delivered image is drawn again by the pipeline, checker and noise included."""
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4,
        num_decoder_blocks=(1,) * 4,
    ).eval()
    for method in ("token", "noise"):
        options = {"label": "apple", "method": method, "vae": tiny, "budget": 9, **SMALL}
        result = t2i.optimize_count(guarded(True), "two {count} cats", 200, brightness, **options).run()
        assert not np.asarray(result.images[0]).any()


def test_a_checker_that_cannot_be_asked_is_refused_where_a_gradient_would_go_past_it(guarded, brightness, monkeypatch):
    pipe = guarded(True)
    monkeypatch.delattr(type(pipe), "run_safety_checker")
    with pytest.raises(UnsupportedModelError, match="in a way that a gradient cannot pass: choose a method without"):
        search(pipe, brightness, "token").run()
    assert pipe.safety_checker is not None
