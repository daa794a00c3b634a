"""Stable Diffusion, inpainting, with the plugins as arguments of the call."""

from diffusers import StableDiffusionInpaintPipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptiveStableDiffusionInpaintPipeline(Adaptive, StableDiffusionInpaintPipeline):
    """This `StableDiffusionInpaintPipeline` also takes the plugins as arguments of its call, see `Adaptive`."""
