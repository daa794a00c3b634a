from functools import cache

import pytest
import torch
from support import pipezoo
from support.shared import shared, watch

from t2i_tools import pipelines

# Module of t2i_tools.pipelines -> pipezoo's pipeline of that family.
MODULES = {
    "stable_diffusion": "stable_diffusion",
    "stable_diffusion_img2img": "stable_diffusion",
    "stable_diffusion_inpaint": "stable_diffusion",
    "stable_diffusion_xl": "stable_diffusion_xl",
    "stable_diffusion_xl_img2img": "stable_diffusion_xl",
    "stable_diffusion_xl_inpaint": "stable_diffusion_xl",
    "stable_diffusion_3": "stable_diffusion_3",
    "stable_diffusion_3_img2img": "stable_diffusion_3",
    "stable_diffusion_3_inpaint": "sixteen_channels",
    "flux": "flux",
    "flux_img2img": "flux",
    "flux_inpaint": "flux",
    "pixart_alpha": "pixart",
    "pixart_sigma": "pixart",
}


@cache
def sixteen_channels():
    """A Stable Diffusion 3 with as many channels as the real one, which its inpainting insists on."""
    pipe = shared("stable_diffusion_3")
    torch.manual_seed(0)
    model = type(pipe.transformer).from_config({**pipe.transformer.config, "in_channels": 16, "out_channels": 16})
    return type(pipe)(**{**pipe.components, "vae": pipezoo.vae(16).eval(), "transformer": model.eval()})


@pytest.fixture(params=MODULES)
def module(request):
    return request.param


@pytest.fixture
def kind(module):
    """The class of the module."""
    (name,) = (name for name, place in pipelines._CLASSES.items() if place == module)
    return getattr(pipelines, name)


@pytest.fixture
def pair(module, kind):
    """The module's pipeline, and diffusers' own around the same parts."""
    parts = watch(sixteen_channels()) if MODULES[module] == "sixteen_channels" else shared(MODULES[module])
    pair = kind.from_pipe(parts), pipelines.adaptive.stock_class(kind)(**kind.from_pipe(parts).components)
    for pipe in pair:
        pipe.set_progress_bar_config(disable=True)
    return pair
