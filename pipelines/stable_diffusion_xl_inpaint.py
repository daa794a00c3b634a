"""Stable Diffusion XL, inpainting, with the plugins as arguments of the call."""

from diffusers import StableDiffusionXLInpaintPipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptiveStableDiffusionXLInpaintPipeline(Adaptive, StableDiffusionXLInpaintPipeline):
    """A `StableDiffusionXLInpaintPipeline` whose call also takes the plugins: see `Adaptive`."""
