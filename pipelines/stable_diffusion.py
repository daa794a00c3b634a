"""Stable Diffusion, text to image, with the plugins as arguments of the call."""

from diffusers import StableDiffusionPipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptiveStableDiffusionPipeline(Adaptive, StableDiffusionPipeline):
    """This `StableDiffusionPipeline` also takes the plugins as arguments of its call, see `Adaptive`."""
