"""PixArt-Alpha, text to image, with the plugins as arguments of the call."""

from diffusers import PixArtAlphaPipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptivePixArtAlphaPipeline(Adaptive, PixArtAlphaPipeline):
    """A `PixArtAlphaPipeline` whose call also takes the plugins: see `Adaptive`."""
