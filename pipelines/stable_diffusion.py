"""Stable Diffusion, text to image, with the plugins as arguments of the call."""

from diffusers import StableDiffusionPipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptiveStableDiffusionPipeline(Adaptive, StableDiffusionPipeline):
    """A `StableDiffusionPipeline` whose call also takes the plugins: see `Adaptive`."""
