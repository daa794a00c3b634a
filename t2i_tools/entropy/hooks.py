"""The gain, multiplied into the keys of image self-attention before each call of a denoiser or ControlNet."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.models.calls import Grid, StepClock, read_call
from t2i_tools.models.families import AttentionLayout, find_layout
from t2i_tools.models.small_maps import SmallMaps, small_maps

Streams: TypeAlias = tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...]
# Of each stream: norms, after which a gain lasts; projections; fused ones. Fusion decides which projection runs.
KEY_STREAMS: Streams = (
    (("norm_k", "key_norm", "k_rms_norm"), ("to_k", "to_key"), ("to_qkv",)),
    (("norm_added_k", "k_rms_norm_t"), ("add_k_proj", "to_k_t"), ("to_added_qkv",)),
)
QUERY_STREAMS: Streams = ((("norm_q",), ("to_q",), ()),)


@dataclass(frozen=True)
class Layer:
    """One image self-attention. level: how often the UNet has halved the latents there."""

    name: str
    attention: nn.Module
    level: int
    joint: bool

    def image_tokens(self, grid: Grid, small: SmallMaps | None = None) -> int:
        """The image tokens of this layer, for those of the whole denoiser on a grid. small: maps made smaller."""
        halvings = self.level
        if small is not None and halvings >= small.level:
            grid, halvings = small.size, halvings - small.level
        return math.prod(-(-side // 2**halvings) for side in grid)

    def tokens(
        self,
        layout: AttentionLayout,
        grid: Grid,
        text: int,
        references: int = 0,
        images: int = 1,
        small: SmallMaps | None = None,
    ) -> int:
        """The keys of this layer for generated images on a grid, text tokens, and tokens of reference images."""
        streams = [images * self.image_tokens(grid, small) + references]
        streams += [text + layout.extra] if self.joint else []
        return sum(-(-tokens // layout.multiple) * layout.multiple for tokens in streams)


def find_layers(model: nn.Module, *, optional: bool = False) -> list[Layer]:
    """The image self-attentions of a denoiser or ControlNet. Raises UnsupportedModelError, unless optional for none."""
    layout = find_layout(model)
    found = [
        Layer(name, module, _level(model, name), joint=bool(re.search(layout.joint, name)) or _adds_text(module))
        for name, module in model.named_modules()
        if re.search(f"{layout.image}|{layout.joint}", name) and _sees_image(module)
    ]
    if not found and not optional:
        raise UnsupportedModelError(f"this {type(model).__name__} has no self-attention over its image")
    if layout.rotary and any(_has_plain_xformers(layer.attention) for layer in found):
        raise UnsupportedModelError(
            f"enable_xformers_memory_efficient_attention() has taken their positions from {type(model).__name__}'s "
            'attentions: open it anew, and call its set_attention_backend("xformers") where it has that'
        )
    return found


class Scaling:
    """Sets the gain of every layer before each call of a denoiser or ControlNet."""

    def __init__(
        self,
        layout: AttentionLayout,
        keys: list[KeyGain],
        native: Grid,
        gain: Callable[[int, int], float],
        steps: Container[int] | None,
        pipe: Any = None,
    ) -> None:
        self.layout = layout
        self.native = native
        self.gain = gain
        self.steps = steps
        self.clock = StepClock(pipe)
        self.keys = keys
        self.last: list[dict[str, Any]] = []

    @torch.compiler.disable
    def before_call(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Root pre-hook: set the gains for the tokens of this call, and the hooks that multiply by them."""
        if not self.keys:  # removed, but compiled into what calls it
            return
        self.set_gains(model, args, kwargs)
        self.bind()

    @torch.compiler.disable  # traced, it would compile anew for every size
    def set_gains(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Root pre-hook: set the gains alone."""
        call = read_call(model, args, kwargs)
        own = call.family.own_scaling
        if own and (call.arguments.get("cross_attention_kwargs") or {}).get(own.key):
            raise InputError(own.advice)
        active = self.steps is None or self.clock.tick(call.time) in self.steps
        if (cached := call.family.cached_keys) and call.arguments.get(cached) is not None:
            raise InputError(
                f"{type(model).__name__} is given keys cached in an earlier call ({cached}), which no gain reaches: "
                "take the pipeline without a cache"
            )
        beside = (call.seen_text + call.extra_text, call.references, call.layers)
        small = small_maps(call)
        for key in self.keys:
            key.n = key.layer.tokens(self.layout, call.grid, *beside, small)
            key.t = key.layer.tokens(self.layout, self.native, *beside)
            key.queries = key.layer.image_tokens(call.grid, small)
            key.gain = self.gain(key.n, key.t) if active else 1.0
            key.ran = False

    def bind(self) -> None:
        """Put the hooks where the keys now come from: what is compiled next has to find them."""
        for key in self.keys:
            key.bind()

    def end(self) -> None:
        """Take the hooks off. What was compiled with them multiplies by 1 from now on."""
        self.last = self.rows()
        for key in self.keys:
            key.unbind()
            key.gain = 1.0
        self.keys = []

    def rows(self) -> list[dict[str, Any]]:
        """layer, N, T, gain, and whether its keys were multiplied in the last call."""
        if not self.keys:
            return self.last
        return [
            {"layer": k.layer.name, "N": k.n, "T": k.t, "gain": k.gain, "acted": k.ran and k.gain != 1.0}
            for k in self.keys
        ]


class KeyGain:
    """Keeps a gain multiplied into the keys of one attention, whatever LoRA or fusion puts in their way.

    softmax(gain q k^T) = softmax(q (gain k)^T) = softmax((gain q) k^T), whichever backend computes it.
    on_queries: multiply the image's queries instead, which stand last.
    """

    def __init__(self, layer: Layer, on_queries: bool = False) -> None:
        self.layer, self.on_queries = layer, on_queries
        self.n: int | None = None
        self.t: int | None = None
        self.gain = 1.0
        self.queries = 0
        self.ran = False
        self._bound: list[tuple[nn.Module, Any]] = []

    def bind(self) -> None:
        """Move the hooks to where the keys now come from, unless they are there."""
        hooks = self.hooks(self.layer.attention)
        if len(hooks) == len(self._bound) and all(m is b for (m, _), (b, _) in zip(hooks, self._bound, strict=True)):
            return
        self.unbind()
        self._bound = [(module, module.register_forward_hook(hook)) for module, hook in hooks]

    def hooks(self, attention: nn.Module) -> list[tuple[nn.Module, Any]]:
        """The modules of an attention that give its keys (or queries), each with the forward hook that scales them."""
        plain = self.scale_last if self.on_queries else self.scale
        modules = stream_modules(attention, QUERY_STREAMS if self.on_queries else KEY_STREAMS)
        return [(module, self.scale_third if fused else plain) for module, fused in modules]

    def unbind(self) -> None:
        """Take the hooks off, also those that a quantised module has copied from the one it replaces."""
        for _, hook in self._bound:
            hook.remove()
        self._bound = []
        for module, _ in self.hooks(self.layer.attention):
            for number, hook in list(module._forward_hooks.items()):
                if getattr(hook, "__self__", None) is self:
                    del module._forward_hooks[number]

    def scale(self, module: nn.Module, args: tuple, key: torch.Tensor) -> torch.Tensor:
        """Forward hook of a norm or projection of keys."""
        self.ran = True
        return key * self.gain

    def scale_third(self, module: nn.Module, args: tuple, qkv: torch.Tensor) -> torch.Tensor:
        """Forward hook of a fused projection."""
        self.ran = True
        query, key, value = qkv.chunk(3, dim=-1)
        return torch.cat([query, key * self.gain, value], dim=-1)

    def scale_last(self, module: nn.Module, args: tuple, query: torch.Tensor) -> torch.Tensor:
        """Forward hook of a norm or projection of queries, (B, L, heads, d), (B, heads, L, d) or (B, L, d)."""
        self.ran = True
        if query.shape[-2] == self.queries or query.shape[1] == self.queries:  # the image's alone
            return query * self.gain
        text, image = query.split([query.shape[1] - self.queries, self.queries], dim=1)
        return torch.cat([text, image * self.gain], dim=1)


def stream_modules(attention: nn.Module, streams: Streams) -> Iterator[tuple[nn.Module, bool]]:
    """The modules whose output the keys or queries are, each with whether it gives all three beside each other."""
    for norms, plain, fused in streams:
        if found := _parts(attention, norms):
            yield from ((module, False) for module in found)
            continue
        yield from ((module, False) for module in _parts(attention, plain))
        yield from ((module, True) for module in _parts(attention, fused))


def check_processors(model: nn.Module) -> None:
    """Raise InputError where the attention processors of a model already scale by size."""
    if any(hasattr(getattr(module, "processor", None), "t2i_key") for module in model.modules()):
        raise InputError(
            f"{type(model).__name__} has attention processors of entropy_processors already: set the earlier ones again"
        )


def _parts(attention: nn.Module, names: tuple[str, ...]) -> list[nn.Module]:
    return [part for name in names if (part := getattr(attention, name, None)) is not None]


def _level(model: nn.Module, name: str) -> int:
    blocks = len(getattr(model, "down_blocks", ()))
    match name.split("."):
        case ["down_blocks", index, *_]:
            return int(index)
        case ["up_blocks", index, *_]:
            return blocks - 1 - int(index)
    return max(blocks - 1, 0)


def _sees_image(module: nn.Module) -> bool:
    """Whether a module is an attention with keys of the image.

    The UNet's attn1 may attend to the text alone, and the flag says so; of blocks that add keys of text to those of the
    image another one does. The flag of other models means other things.
    """
    if next(stream_modules(module, KEY_STREAMS), None) is None:
        return False
    if _adds_text(module):
        return not getattr(module, "only_cross_attention", False)
    return not getattr(module, "is_cross_attention", False)


def _adds_text(module: nn.Module) -> bool:
    """Whether an attention adds keys of the text to those of the image."""
    return getattr(module, "added_kv_proj_dim", None) is not None


def _has_plain_xformers(attention: nn.Module) -> bool:
    return type(getattr(attention, "processor", None)).__name__ == "XFormersAttnProcessor"
