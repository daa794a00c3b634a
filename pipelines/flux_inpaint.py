"""Flux, inpainting, with the plugins as arguments of the call."""

from diffusers import FluxInpaintPipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptiveFluxInpaintPipeline(Adaptive, FluxInpaintPipeline):
    """This `FluxInpaintPipeline` also takes the plugins as arguments of its call, see `Adaptive`."""
