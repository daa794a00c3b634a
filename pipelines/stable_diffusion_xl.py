"""Stable Diffusion XL, text to image, with the plugins as arguments of the call."""

from diffusers import StableDiffusionXLPipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptiveStableDiffusionXLPipeline(Adaptive, StableDiffusionXLPipeline):
    """A `StableDiffusionXLPipeline` whose call also takes the plugins: see `Adaptive`."""
