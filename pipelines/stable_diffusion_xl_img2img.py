"""Stable Diffusion XL, image to image, with the plugins as arguments of the call."""

from diffusers import StableDiffusionXLImg2ImgPipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptiveStableDiffusionXLImg2ImgPipeline(Adaptive, StableDiffusionXLImg2ImgPipeline):
    """This `StableDiffusionXLImg2ImgPipeline` also takes the plugins as arguments of its call, see `Adaptive`."""
