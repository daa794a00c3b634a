"""An image of NaN is an error, never a black image, and finite ones are to the bit the pipeline's."""

import numpy as np
import pytest
import torch

from t2i_tools.errors import ModelError
from t2i_tools.images.eight_bits import eight_bits, to_images
from t2i_tools.images.generate import Request, generate_image, generate_images

SMALL = {"size": (16, 16), "steps": 1}


@pytest.fixture
def broken(tiny_pipeline):
    """broken(places) has the VAE give NaN for these places of a batch."""
    hooks = []

    def install(places):
        def spoil(module, arguments, output):
            output[list(places), :, 3, 5] = torch.nan
            return output

        hooks.append(tiny_pipeline.vae.decoder.register_forward_hook(spoil))

    yield install
    for hook in hooks:
        hook.remove()


def test_images_are_those_of_the_pipeline(tiny_pipeline):
    call = {"height": 16, "width": 16, "num_inference_steps": 1}
    plain = tiny_pipeline("two cats", generator=torch.Generator().manual_seed(3), **call).images[0]
    assert generate_image(tiny_pipeline, Request("two cats", 3, **SMALL)).tobytes() == plain.tobytes()


def test_an_image_of_nan_is_an_error(tiny_pipeline, broken):
    broken([0])
    with pytest.raises(ModelError, match=r"^the image came out as NaN.*--dtype float32"):
        generate_image(tiny_pipeline, Request("two cats", 3, **SMALL))


def test_those_of_a_batch_are_named(tiny_pipeline, broken):
    broken([1, 2])
    with pytest.raises(ModelError, match="image 2, 3 of 4 came out as NaN"):
        generate_images(tiny_pipeline, [Request("two cats", seed, **SMALL) for seed in range(4)])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_whatever_is_not_finite_is_refused(bad):
    images = torch.full((2, 3, 4, 4), 0.5)
    assert (eight_bits(images) == 128).all()
    assert np.asarray(to_images(images.permute(0, 2, 3, 1).numpy())[1]).tolist() == np.full((4, 4, 3), 128).tolist()
    images[1, 2, 3, 0] = bad
    for refuse in (lambda: eight_bits(images), lambda: to_images(images.permute(0, 2, 3, 1).numpy())):
        with pytest.raises(ModelError, match="image 2 of 2"):
            refuse()
