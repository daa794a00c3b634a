"""Flux, inpainting, with the plugins as arguments of the call."""

from diffusers import FluxInpaintPipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptiveFluxInpaintPipeline(Adaptive, FluxInpaintPipeline):
    """A `FluxInpaintPipeline` whose call also takes the plugins: see `Adaptive`."""
