"""PixArt-Alpha, text to image, with the plugins as arguments of the call."""

from diffusers import PixArtAlphaPipeline

from t2i_tools.pipelines.adaptive import Adaptive


class AdaptivePixArtAlphaPipeline(Adaptive, PixArtAlphaPipeline):
    """This `PixArtAlphaPipeline` also takes the plugins as arguments of its call, see `Adaptive`."""
