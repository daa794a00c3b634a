"""Stable Diffusion XL, text to image, with the plugins as arguments of the call."""

from diffusers import StableDiffusionXLPipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptiveStableDiffusionXLPipeline(Adaptive, StableDiffusionXLPipeline):
    """This `StableDiffusionXLPipeline` also takes the plugins as arguments of its call, see `Adaptive`."""
