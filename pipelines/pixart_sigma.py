"""PixArt-Sigma, text to image, with the plugins as arguments of the call."""

from diffusers import PixArtSigmaPipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptivePixArtSigmaPipeline(Adaptive, PixArtSigmaPipeline):
    """This `PixArtSigmaPipeline` also takes the plugins as arguments of its call, see `Adaptive`."""
