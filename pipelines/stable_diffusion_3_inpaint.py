"""Stable Diffusion 3 and 3.5, inpainting, with the plugins as arguments of the call."""

from diffusers import StableDiffusion3InpaintPipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptiveStableDiffusion3InpaintPipeline(Adaptive, StableDiffusion3InpaintPipeline):
    """This `StableDiffusion3InpaintPipeline` also takes the plugins as arguments of its call, see `Adaptive`."""
