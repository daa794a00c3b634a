"""Pipelines of diffusers that have no class here, made adaptive by the mixin."""

import diffusers
import pytest
import torch
from PIL import Image
from support import pipezoo
from support.shared import shared

import t2i_tools as t2i
from t2i_tools.pipelines import Adaptive


class AdaptiveLumina2(Adaptive, diffusers.Lumina2Pipeline):
    pass


class AdaptiveControlNet(Adaptive, diffusers.StableDiffusionControlNetPipeline):
    pass


class Portrait(AdaptiveControlNet):
    """A subclass with a call of its own goes on taking the plugins."""

    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **{**kwargs, "height": 96, "width": 64})


def test_lumina2():
    stock = shared("lumina2")
    pipe = AdaptiveLumina2.from_pipe(stock)
    pipe.system_prompt = stock.system_prompt
    pipe.set_progress_bar_config(disable=True)
    with t2i.entropy_scaling(stock, native=(128, 128)):
        expected = pipezoo.call(stock)
    assert torch.equal(pipezoo.call(pipe, entropy_scaling={"native": (128, 128)}), expected)
    assert torch.equal(pipezoo.call(pipe), pipezoo.call(stock))
    with t2i.long_prompts(stock, "chunk"):
        expected = pipezoo.call(stock, "two (red:1.5) cats")
    assert torch.equal(pipezoo.call(pipe, "two (red:1.5) cats", long_prompts="chunk"), expected)


@pytest.mark.parametrize(("kind", "size"), [(AdaptiveControlNet, (64, 96)), (Portrait, (96, 64))])
def test_controlnet(kind, size):
    stock = shared("stable_diffusion")
    torch.manual_seed(0)
    control = diffusers.ControlNetModel.from_unet(stock.unet, conditioning_channels=3)
    pipe = kind.from_pipe(stock, controlnet=control.eval())
    pipe.set_progress_bar_config(disable=True)
    height, width = size
    options = {"image": Image.new("RGB", (width, height), "red"), "height": 64, "width": 96}
    plain = pipezoo.call(pipe, **options)
    with t2i.entropy_scaling(pipe), t2i.long_prompts(pipe, "stretch"):
        expected = pipezoo.call(pipe, **options)
    assert plain.shape[-2:] == (height // 8, width // 8)
    assert not torch.equal(expected, plain)
    assert torch.equal(pipezoo.call(pipe, **options, entropy_scaling=True, long_prompts="stretch"), expected)
    assert torch.equal(pipezoo.call(pipe, **options), plain)
