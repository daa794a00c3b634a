import numpy as np
import pytest
import torch

from t2i_tools.errors import UnsupportedModelError
from t2i_tools.evaluation.runs.generators import GENERATORS, denoiser_passes
from t2i_tools.evaluation.runs.items import Item
from t2i_tools.evaluation.runs.shifting import first_order_solver, shifted_timesteps
from t2i_tools.evaluation.studies.advice import OPTIONS


def items(size, steps=4, prompt="two cats"):
    return [Item(prompt, seed, size=size, steps=steps, guidance=2.0) for seed in (1, 2)]


def pixels(images):
    return np.stack([np.asarray(image, dtype=np.int64) for image in images])


@pytest.fixture(scope="module")
def off_native(tiny_pipeline):
    long = items((96, 64), prompt="two cats and a dog " * 20)  # or reading it whole changes nothing
    return {name: pixels(method(tiny_pipeline, long)) for name, method in GENERATORS.items()}


@pytest.mark.parametrize("name", GENERATORS)
def test_each_method_makes_images_of_its_own(name, off_native):
    assert name in OPTIONS or name in ("shifted", "chunk", "stretch")  # which no size calls for
    images = off_native[name]
    assert images.shape == (2, 96, 64, 3)
    assert not np.array_equal(images[0], images[1])
    paper = {"entropy_auto", "entropy_scaling"}  # the same above the native size
    for other in GENERATORS.keys() - (paper if name in paper else {name}):
        assert not np.array_equal(images, off_native[other]), other


def test_auto_is_the_papers_strength_above_the_native_size_and_more_below(tiny_pipeline, off_native):
    assert np.array_equal(off_native["entropy_auto"], off_native["entropy_scaling"])
    methods = (GENERATORS["entropy_auto"], GENERATORS["entropy_scaling"])
    auto, paper = (pixels(method(tiny_pipeline, items((32, 64)))) for method in methods)
    assert not np.array_equal(auto, paper)


@pytest.mark.parametrize("name", GENERATORS)
def test_at_the_native_size_all_are_plain(name, tiny_pipeline):
    plain = pixels(GENERATORS["plain"](tiny_pipeline, items((64, 64))))
    images = pixels(GENERATORS[name](tiny_pipeline, items((64, 64))))
    assert abs(images - plain).max() <= (1 if name == "shifted" else 0)  # DDIM in another form


def test_timesteps_move_by_the_noise(tiny_pipeline):
    """Each one's sigma / alpha is twice that of the unshifted one, but for the first and rounding."""
    own = tiny_pipeline.scheduler
    plain, shifted, lower = (shifted_timesteps(own, 10, shift) for shift in (1.0, 2.0, 0.5))
    own.set_timesteps(10)
    assert plain == own.timesteps.tolist()
    noise = (1 / own.alphas_cumprod.double() - 1).sqrt()
    assert shifted[0] == lower[0] == plain[0]
    inner = [i for i in range(1, 10) if noise[plain[i]] * 2 < noise[-1]]
    assert len(inner) > 5
    assert torch.allclose(noise[shifted][inner], 2 * noise[plain][inner], rtol=0.02)
    assert all(low < mid for low, mid in zip(lower[1:], plain[1:], strict=True))


def test_the_scheduler_comes_back(tiny_pipeline):
    own = tiny_pipeline.scheduler
    with pytest.raises(KeyError), first_order_solver(tiny_pipeline):
        raise KeyError
    assert tiny_pipeline.scheduler is own


def test_models_without_such_timesteps():
    from diffusers import FlowMatchEulerDiscreteScheduler

    with pytest.raises(UnsupportedModelError, match="FlowMatchEuler"):
        shifted_timesteps(FlowMatchEulerDiscreteScheduler(), 10, 2.0)


def test_two_passes_are_counted(tiny_pipeline):
    with denoiser_passes(tiny_pipeline) as passes:
        GENERATORS["two_pass"](tiny_pipeline, items((96, 64)))
    assert sum(passes) == (4 + 2) * 4  # steps of both passes x (2 images, each with guidance)
