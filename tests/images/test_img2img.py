import numpy as np
import pytest
import torch
from PIL import Image
from support.shared import shared

from t2i_tools.entropy import entropy_scaling
from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.images.generate import Request, generate_image, generate_images
from t2i_tools.images.img2img import first_size, image_to_image, two_pass
from t2i_tools.pipelines import AdaptiveStableDiffusionPipeline


def request(seed=3, size=(96, 128), **more):
    return Request("two cats", seed, size=size, steps=4, guidance=2.0, **more)


def pixels(image):
    return np.asarray(image, dtype=np.int64)


def test_first_sizes(tiny_pipeline):
    """64x64 pixels of area, in steps of 8."""
    assert first_size(tiny_pipeline, (128, 128)) == (64, 64)
    assert first_size(tiny_pipeline, (32, 128)) == (32, 128)
    assert first_size(tiny_pipeline, (100, 201)) == (48, 88)
    assert first_size(tiny_pipeline, (256, 256), native=(128, 64)) == (88, 88)


def test_against_diffusers_own_image_to_image(tiny_pipeline):
    """The draft, resized and handed over by hand."""
    from diffusers import StableDiffusionImg2ImgPipeline

    (image,) = two_pass(tiny_pipeline, [request()], strength=0.75)
    draft = generate_image(tiny_pipeline, request(size=(56, 72)))
    second = StableDiffusionImg2ImgPipeline(**tiny_pipeline.components, requires_safety_checker=False)
    second.set_progress_bar_config(disable=True)
    expected = second(
        "two cats",
        image=draft.resize((128, 96), Image.Resampling.LANCZOS),
        strength=0.75,
        num_inference_steps=4,
        guidance_scale=2.0,
        generator=torch.Generator().manual_seed(3),
    ).images[0]
    assert image.size == (128, 96)
    assert np.array_equal(pixels(image), pixels(expected))


def test_any_size_to_the_pixel(tiny_pipeline):
    for size in ((99, 131), (40, 23)):
        (image,) = two_pass(tiny_pipeline, [request(size=size)])
        assert (image.height, image.width) == size
    (image,) = two_pass(tiny_pipeline, [request(size=(99, 131), fit="snap")])
    assert (image.height, image.width) == (96, 128)


def test_one_pass_where_the_model_knows_the_size(tiny_pipeline):
    for size in ((64, 64), (32, 128), None):
        expected = generate_image(tiny_pipeline, request(size=size))
        (image,) = two_pass(tiny_pipeline, [request(size=size)])
        assert np.array_equal(pixels(image), pixels(expected))


def test_a_batch_and_its_steps(tiny_pipeline):
    steps = []
    requests = [request(1, negative="red"), request(2, negative="blue")]
    images = two_pass(tiny_pipeline, requests, on_step=lambda step, total: steps.append((step, total)))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4), (1, 2), (2, 2)]
    assert not np.array_equal(pixels(images[0]), pixels(images[1]))


def test_plugins_act_in_the_second_pass(tiny_pipeline):
    plain, *_ = two_pass(tiny_pipeline, [request(size=(128, 128))])
    with entropy_scaling(tiny_pipeline) as handle:
        scaled, *_ = two_pass(tiny_pipeline, [request(size=(128, 128))])
        assert {(row["N"], row["T"]) for row in handle.report()} == {(64, 16)}
    assert not np.array_equal(pixels(plain), pixels(scaled))


@pytest.mark.parametrize("strength", [0, -1, 1.1, 0.2, float("nan")])
def test_strengths_without_a_step(tiny_pipeline, strength):
    with pytest.raises(InputError, match="strength"):
        two_pass(tiny_pipeline, [request()], strength=strength)


def test_pipelines_without_a_second_pass():
    with pytest.raises(UnsupportedModelError, match="no image-to-image pipeline for CogView4Pipeline"):
        image_to_image(shared("cogview4"))


def test_subclasses_have_the_second_pass_of_what_they_derive_from(tiny_pipeline):
    class Mine(type(tiny_pipeline)):
        pass

    expected = two_pass(tiny_pipeline, [request()])[0]
    for kind in (Mine, AdaptiveStableDiffusionPipeline):
        pipe = kind(**tiny_pipeline.components, requires_safety_checker=False)
        pipe.set_progress_bar_config(disable=True)
        assert type(image_to_image(pipe)).__name__ == "StableDiffusionImg2ImgPipeline"
        assert type(pipe) is kind
        assert np.array_equal(pixels(two_pass(pipe, [request()])[0]), pixels(expected))


def test_requests_that_do_not_agree(tiny_pipeline):
    for make in (two_pass, generate_images):
        with pytest.raises(InputError, match="agree"):
            make(tiny_pipeline, [request(), request(size=(64, 128))])
