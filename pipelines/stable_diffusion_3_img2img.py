"""Stable Diffusion 3 and 3.5, image to image, with the plugins as arguments of the call."""

from diffusers import StableDiffusion3Img2ImgPipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptiveStableDiffusion3Img2ImgPipeline(Adaptive, StableDiffusion3Img2ImgPipeline):
    """This `StableDiffusion3Img2ImgPipeline` also takes the plugins as arguments of its call, see `Adaptive`."""
