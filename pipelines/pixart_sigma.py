"""PixArt-Sigma, text to image, with the plugins as arguments of the call."""

from diffusers import PixArtSigmaPipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptivePixArtSigmaPipeline(Adaptive, PixArtSigmaPipeline):
    """A `PixArtSigmaPipeline` whose call also takes the plugins: see `Adaptive`."""
