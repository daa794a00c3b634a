"""Stable Diffusion 3 and 3.5, text to image, with the plugins as arguments of the call."""

from diffusers import StableDiffusion3Pipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptiveStableDiffusion3Pipeline(Adaptive, StableDiffusion3Pipeline):
    """This `StableDiffusion3Pipeline` also takes the plugins as arguments of its call, see `Adaptive`."""
