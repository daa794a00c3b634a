"""Flux, text to image, with the plugins as arguments of the call."""

from diffusers import FluxPipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptiveFluxPipeline(Adaptive, FluxPipeline):
    """This `FluxPipeline` also takes the plugins as arguments of its call, see `Adaptive`."""
