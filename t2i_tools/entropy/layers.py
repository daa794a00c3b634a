"""Which attentions of a denoiser are image self-attention, and how many tokens each of them sees."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from t2i_tools.errors import UnsupportedModelError

Grid = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """How a denoiser arranges its tokens.

    image, joint: which modules are self-attention over image tokens alone, and over image and text (regular
    expressions on their names). mask: the argument that tells which text tokens are real. patch: side of a token in
    latents where the config does not say. extra: learned tokens beside the text. multiple: what each stream is filled
    up to. text_first: where the text stands among the keys. rotary: whether its attention needs more than queries,
    keys and values, which `enable_xformers_memory_efficient_attention()` then loses.
    """

    image: str = "(?!)"
    joint: str = "(?!)"
    mask: str | None = None
    patch: int = 1
    extra: int = 0
    multiple: int = 1
    text_first: bool = True
    rotary: bool = True


LAYOUTS = {
    "UNet2DConditionModel": Layout(image=r"\.attn1$", rotary=False),
    "PixArtTransformer2DModel": Layout(image=r"\.attn1$", rotary=False),
    "HunyuanDiT2DModel": Layout(image=r"\.attn1$"),
    "LuminaNextDiT2DModel": Layout(image=r"\.attn1$"),
    "Lumina2Transformer2DModel": Layout(
        r"^noise_refiner\.\d+\.attn$", r"^layers\.\d+\.attn$", "encoder_attention_mask"
    ),
    "SD3Transformer2DModel": Layout(r"\.attn2$", r"\.attn$", text_first=False),
    "FluxTransformer2DModel": Layout(joint=r"\.attn$"),
    "ChromaTransformer2DModel": Layout(joint=r"\.attn$", mask="attention_mask"),
    "QwenImageTransformer2DModel": Layout(joint=r"\.attn$", mask="encoder_hidden_states_mask"),
    "AuraFlowTransformer2DModel": Layout(joint=r"\.attn$", extra=8),
    "CogView4Transformer2DModel": Layout(joint=r"\.attn1$"),
    "ZImageTransformer2DModel": Layout(
        r"^noise_refiner\.\d+\.attention$", r"^layers\.\d+\.attention$", patch=2, multiple=32, text_first=False
    ),
    "ControlNetModel": Layout(image=r"\.attn1$", rotary=False),
    "ControlNetUnionModel": Layout(image=r"\.attn1$", rotary=False),
    "SD3ControlNetModel": Layout(r"\.attn2$", r"\.attn$", text_first=False),
    "FluxControlNetModel": Layout(joint=r"\.attn$"),
    "HunyuanDiT2DControlNetModel": Layout(image=r"\.attn1$"),
    "QwenImageControlNetModel": Layout(joint=r"\.attn$", mask="encoder_hidden_states_mask"),
    # Of some, the control layers see the image by itself as well; they have one gain, for image and text.
    "ZImageControlNetModel": Layout(
        r"noise_refiner\.\d+\.attention$", r"^control_layers\.\d+\.attention$", patch=2, multiple=32, text_first=False
    ),
}


@dataclass(frozen=True)
class Layer:
    """One image self-attention. level: how often the UNet has halved the latents there."""

    name: str
    attention: nn.Module
    level: int
    joint: bool

    def tokens(self, layout: Layout, grid: Grid, text: int) -> int:
        """The keys of this layer for image tokens on a grid and a number of text tokens."""
        streams = [math.prod(-(-side // 2**self.level) for side in grid)]
        streams += [text + layout.extra] if self.joint else []
        return sum(-(-tokens // layout.multiple) * layout.multiple for tokens in streams)


def find_layout(model: nn.Module) -> Layout:
    """The layout of a denoiser's or ControlNet's class or of a base. Raises UnsupportedModelError."""
    names = [base.__name__ for base in type(model).__mro__]
    if "SanaTransformer2DModel" in names:
        raise UnsupportedModelError(
            "SanaTransformer2DModel has linear attention, without a softmax whose entropy could be scaled or measured"
        )
    layout = next((LAYOUTS[name] for name in names if name in LAYOUTS), None)
    if layout is None:
        instead = "; of a pipeline pass the denoiser, to leave its ControlNet out" if "Control" in names[0] else ""
        raise UnsupportedModelError(
            f"{names[0]}: it is not known which of its attentions see the image; supported are {', '.join(LAYOUTS)}"
            + instead
        )
    return layout


def find_layers(model: nn.Module, *, optional: bool = False) -> list[Layer]:
    """The image self-attentions of a denoiser or ControlNet. Raises UnsupportedModelError, unless optional for none."""
    layout = find_layout(model)
    found = [
        Layer(name, module, _level(model, name), joint=bool(re.search(layout.joint, name)))
        for name, module in model.named_modules()
        if re.search(f"{layout.image}|{layout.joint}", name) and not _is_cross(module)
    ]
    if not found and not optional:
        raise UnsupportedModelError(f"this {type(model).__name__} has no self-attention over its image")
    if layout.rotary and any(_has_plain_xformers(layer.attention) for layer in found):
        raise UnsupportedModelError(
            f"enable_xformers_memory_efficient_attention() has taken their positions from {type(model).__name__}'s "
            'attentions: open it anew, and call its set_attention_backend("xformers") where it has that'
        )
    return found


@dataclass(frozen=True)
class Call:
    """What a denoiser was called with: the grid of image tokens, real text tokens, and all other arguments by name."""

    grid: Grid
    text: int
    arguments: Mapping[str, Any]

    @property
    def time(self) -> float:
        """The timestep."""
        time = self.arguments["timestep"] if "timestep" in self.arguments else self.arguments["t"]
        return float(time.flatten()[0]) if isinstance(time, torch.Tensor) else float(time)


def read_call(model: nn.Module, layout: Layout, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
    """Read the arguments of a denoiser's forward."""
    arguments = {**dict(zip(_parameters(type(model)), args, strict=False)), **kwargs}
    image = next(arguments[name] for name in ("sample", "hidden_states", "x") if name in arguments)
    image = image if isinstance(image, torch.Tensor) else image[0]
    if not isinstance(image, torch.Tensor):
        raise UnsupportedModelError(f"{type(model).__name__} was given several pictures at once: only one is supported")
    if image.ndim == 3 and "x" not in arguments:  # packed outside: (B, N, C)
        grid = (1, image.shape[1])
    else:
        grid = tuple(side // token_side(model, layout) for side in image.shape[-2:])
    modes = 1 if getattr(model.config, "num_mode", None) else 0  # Flux: a token tells a union what its picture shows
    return Call(grid, _text_tokens(layout, arguments) + modes, arguments)


def token_side(model: nn.Module, layout: Layout) -> int:
    """Latents along one side of a token."""
    return getattr(model.config, "patch_size", None) or layout.patch


def _text_tokens(layout: Layout, arguments: Mapping[str, Any]) -> int:
    """The longest text of the batch, without what a mask hides."""
    text = next((arguments[name] for name in ("encoder_hidden_states", "cap_feats") if name in arguments), None)
    if text is None:
        return 0
    if not isinstance(text, torch.Tensor):
        return max(len(one) for one in text)
    mask = arguments.get(layout.mask) if layout.mask else None
    return text.shape[1] if mask is None else int((mask[:, : text.shape[1]] > 0).sum(1).max())


def _level(model: nn.Module, name: str) -> int:
    blocks = len(getattr(model, "down_blocks", ()))
    match name.split("."):
        case ["down_blocks", index, *_]:
            return int(index)
        case ["up_blocks", index, *_]:
            return blocks - 1 - int(index)
    return max(blocks - 1, 0)


def _is_cross(attention: nn.Module) -> bool:
    """The UNet's attn1 where it attends to the text; the flag of other models means other things."""
    return getattr(attention, "is_cross_attention", False)


def _has_plain_xformers(attention: nn.Module) -> bool:
    return type(getattr(attention, "processor", None)).__name__ == "XFormersAttnProcessor"


@cache
def _parameters(kind: type[nn.Module]) -> tuple[str, ...]:
    return tuple(inspect.signature(kind.forward).parameters)[1:]
