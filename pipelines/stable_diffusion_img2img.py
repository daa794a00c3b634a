"""Stable Diffusion, image to image, with the plugins as arguments of the call."""

from diffusers import StableDiffusionImg2ImgPipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptiveStableDiffusionImg2ImgPipeline(Adaptive, StableDiffusionImg2ImgPipeline):
    """This `StableDiffusionImg2ImgPipeline` also takes the plugins as arguments of its call, see `Adaptive`."""
