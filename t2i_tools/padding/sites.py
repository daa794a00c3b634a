"""Where the text stands at each attention block of a denoiser."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import nn

from t2i_tools.errors import UnsupportedModelError


@dataclass(frozen=True)
class Site:
    """Blocks that are handed the text alike.

    blocks: regular expression on their names. argument: of their forward, that holds the text. joint: whether the image
    is in it too. extra: learned tokens before the text. text_last: in attention the image stands first. real: what a
    mask hides of the text is left out.
    """

    blocks: str
    argument: str = "encoder_hidden_states"
    joint: bool = False
    extra: int = 0
    text_last: bool = False
    real: bool = False


BESIDE = Site(r"(^|\.)transformer_blocks\.\d+$")
SITES = {
    "UNet2DConditionModel": (BESIDE,),
    "PixArtTransformer2DModel": (BESIDE,),
    "SD3Transformer2DModel": (replace(BESIDE, text_last=True),),
    "QwenImageTransformer2DModel": (BESIDE,),
    "CogView4Transformer2DModel": (BESIDE,),
    "FluxTransformer2DModel": (BESIDE, Site(r"^single_transformer_blocks\.\d+$")),
    "ChromaTransformer2DModel": (BESIDE, Site(r"^single_transformer_blocks\.\d+$", "hidden_states", joint=True)),
    "AuraFlowTransformer2DModel": (
        Site(r"^joint_transformer_blocks\.\d+$", extra=8),
        Site(r"^single_transformer_blocks\.\d+$", "hidden_states", joint=True, extra=8),
    ),
    "Lumina2Transformer2DModel": (
        Site(r"^context_refiner\.\d+$", "hidden_states"),
        Site(r"^layers\.\d+$", "hidden_states", joint=True, real=True),
    ),
    "ZImageTransformer2DModel": (
        Site(r"^context_refiner\.\d+$", "x"),
        Site(r"^layers\.\d+$", "x", joint=True, text_last=True),
    ),
}
# The text is the same in each of their blocks and steps: an intervention there is one in the encoder's output.
CROSS_ATTENTION = ("UNet2DConditionModel", "PixArtTransformer2DModel")
Z_IMAGE_MULTIPLE = 32  # to which it fills up image and text


@dataclass(frozen=True)
class Call:
    """What a denoiser is called with: its text, one tensor (L, d) an item, the length of the text in its blocks,
    the length without what a mask hides, tokens of the image where they come first, and the timestep."""

    text: list[torch.Tensor]
    length: int
    real: int
    image: int
    time: float


def find_sites(model: nn.Module) -> list[tuple[str, nn.Module, Site]]:
    """Name, block and site of each attention block, in the order of the model. Raises UnsupportedModelError."""
    return [
        (name, module, site)
        for name, module in model.named_modules()
        for site in _sites(model)
        if re.search(site.blocks, name)
    ]


def is_cross_attention(model: nn.Module) -> bool:
    """Whether the text only ever is what the image attends to."""
    return any(name in CROSS_ATTENTION for name in _names(model))


def read_call(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
    """Read the arguments of a denoiser's forward. Raises UnsupportedModelError."""
    arguments = {**dict(zip(parameters(type(model)), args, strict=False)), **kwargs}
    text = arguments.get("encoder_hidden_states", arguments.get("cap_feats"))
    if text is None or not all(isinstance(one, torch.Tensor) for one in text):
        raise UnsupportedModelError(f"{type(model).__name__} was called without text, or with several pictures at once")
    length = max(len(one) for one in text)
    mask, image = arguments.get("encoder_attention_mask"), 0
    real = int((mask > 0).sum(1).max()) if isinstance(mask, torch.Tensor) and mask.ndim == 2 else length
    if "cap_feats" in arguments:
        patch = arguments.get("patch_size", 2)
        image = _filled(math.prod(arguments["x"][0].shape[1:]) // patch**2)
        length = real = _filled(length)
    time = arguments["timestep"] if "timestep" in arguments else arguments["t"]
    time = float(time.flatten()[0]) if isinstance(time, torch.Tensor) else float(time)
    return Call(list(text), length, real, image, time)


def text_span(site: Site, call: Call) -> tuple[int, int]:
    """Start and stop of the text in the site's argument."""
    start = call.image if site.joint and site.text_last else site.extra
    return start, start + (call.real if site.real else call.length)


def text_argument(site: Site, module: nn.Module, args: tuple, kwargs: dict) -> tuple[str | int, torch.Tensor]:
    """The key or position of the argument that holds the text, and its value."""
    if site.argument in kwargs:
        return site.argument, kwargs[site.argument]
    index = parameters(type(module)).index(site.argument)
    return index, args[index]


@cache
def parameters(kind: type[nn.Module]) -> tuple[str, ...]:
    """The names of a forward's arguments."""
    return tuple(inspect.signature(kind.forward).parameters)[1:]


def _sites(model: nn.Module) -> tuple[Site, ...]:
    for name in _names(model):
        if name in SITES:
            return SITES[name]
    raise UnsupportedModelError(
        f"{type(model).__name__}: it is not known where its blocks have the text; supported are {', '.join(SITES)}"
    )


def _names(model: nn.Module) -> Iterator[str]:
    return (base.__name__ for base in type(model).__mro__)


def _filled(tokens: int) -> int:
    return -(-tokens // Z_IMAGE_MULTIPLE) * Z_IMAGE_MULTIPLE
