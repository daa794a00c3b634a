"""What a running image will become, of every family's real classes: at the last step it is the pipeline's own image."""

import pytest
import torch
from support import pipezoo
from support.newer_pipelines import older
from support.shared import shared

from t2i_tools.errors import UnsupportedModelError
from t2i_tools.models.running_image import CallEnded, decoded, watched

OWN_SIZES = ("hidream", "kandinsky5")
READ = ["stable_diffusion", "stable_diffusion_3", "pixart", "aura_flow", "lumina2", "z_image", "cogview4"]
PACKED = ["flux", "flux2_klein", "qwen_image", "chroma", "bria", "krea2", "nucleus_moe", "ovis_image", "qwen_image_21"]
PACKED += ["longcat_image"]
NEWER = ["hidream", "hunyuan_dit", "hunyuan_image", "lumina", "prx", "stable_diffusion_xl"]


def leaves_nothing(pipe):
    return "step" not in vars(pipe.scheduler) and "prepare_latents" not in vars(pipe)


@pytest.mark.parametrize("name", older([*READ, *PACKED, *NEWER]))
def test_at_the_last_step_it_is_the_image(name):
    pipe, seen = shared(name), []
    size = {} if name in OWN_SIZES else {"height": 64, "width": 96}
    with watched(pipe, lambda running: seen.append(running.images(1))):
        own = pipezoo.call(pipe, output_type="pt", **size)
    torch.testing.assert_close(seen[-1], own[:1].float(), atol=1e-4, rtol=1e-4)
    assert len(seen) >= 3 and not torch.allclose(seen[0], seen[-1], atol=1e-4)
    assert leaves_nothing(pipe)


def test_each_call_has_its_own_size():
    pipe, sizes = shared("flux"), []
    with watched(pipe, lambda running: sizes.append(running.images().shape[-2:])):
        for height, width in ((64, 96), (96, 64)):  # as many tokens
            pipezoo.call(pipe, height=height, width=width)
    assert set(sizes[: len(sizes) // 2]) == {(64, 96)} and set(sizes[len(sizes) // 2 :]) == {(96, 64)}


def test_one_inside_another_and_a_call_that_is_ended_leave_nothing():
    pipe, outer, inner = shared("flux"), [], []

    def end(running):
        inner.append(running)
        raise CallEnded

    with watched(pipe, outer.append):
        with pytest.raises(CallEnded), watched(pipe, end):
            pipezoo.call(pipe)
        assert not leaves_nothing(pipe)
        pipezoo.call(pipe)
    assert len(inner) == 1 and len(outer) == 3 and leaves_nothing(pipe)


def test_packed_latents_without_their_size_are_refused():
    with pytest.raises(UnsupportedModelError, match="has not said the size"):
        decoded(shared("flux"), torch.zeros(1, 24, 16))
