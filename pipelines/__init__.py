"""Diffusers pipelines with the plugins built in; one class a file, each also a custom pipeline."""

from importlib import import_module
from typing import Any

# Class -> its module, imported when it is first used: each brings a pipeline of diffusers along.
_CLASSES = {
    "Adaptive": "adaptive",
    "AdaptiveFluxImg2ImgPipeline": "flux_img2img",
    "AdaptiveFluxInpaintPipeline": "flux_inpaint",
    "AdaptiveFluxPipeline": "flux",
    "AdaptivePixArtAlphaPipeline": "pixart_alpha",
    "AdaptivePixArtSigmaPipeline": "pixart_sigma",
    "AdaptiveStableDiffusion3Img2ImgPipeline": "stable_diffusion_3_img2img",
    "AdaptiveStableDiffusion3InpaintPipeline": "stable_diffusion_3_inpaint",
    "AdaptiveStableDiffusion3Pipeline": "stable_diffusion_3",
    "AdaptiveStableDiffusionImg2ImgPipeline": "stable_diffusion_img2img",
    "AdaptiveStableDiffusionInpaintPipeline": "stable_diffusion_inpaint",
    "AdaptiveStableDiffusionPipeline": "stable_diffusion",
    "AdaptiveStableDiffusionXLImg2ImgPipeline": "stable_diffusion_xl_img2img",
    "AdaptiveStableDiffusionXLInpaintPipeline": "stable_diffusion_xl_inpaint",
    "AdaptiveStableDiffusionXLPipeline": "stable_diffusion_xl",
}
__all__ = sorted(_CLASSES)


def __getattr__(name: str) -> Any:
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_CLASSES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
