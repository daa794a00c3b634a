"""Stable Diffusion XL, inpainting, with the plugins as arguments of the call."""

from diffusers import StableDiffusionXLInpaintPipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptiveStableDiffusionXLInpaintPipeline(Adaptive, StableDiffusionXLInpaintPipeline):
    """This `StableDiffusionXLInpaintPipeline` also takes the plugins as arguments of its call, see `Adaptive`."""
