"""Stable Diffusion 3 and 3.5, inpainting, with the plugins as arguments of the call."""

from diffusers import StableDiffusion3InpaintPipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptiveStableDiffusion3InpaintPipeline(Adaptive, StableDiffusion3InpaintPipeline):
    """A `StableDiffusion3InpaintPipeline` whose call also takes the plugins: see `Adaptive`."""
