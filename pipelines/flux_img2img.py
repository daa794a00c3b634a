"""Flux, image to image, with the plugins as arguments of the call."""

from diffusers import FluxImg2ImgPipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptiveFluxImg2ImgPipeline(Adaptive, FluxImg2ImgPipeline):
    """This `FluxImg2ImgPipeline` also takes the plugins as arguments of its call, see `Adaptive`."""
