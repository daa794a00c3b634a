"""The gain, multiplied into the keys of image self-attention, a denoiser's and its ControlNets'."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from t2i_tools.compiled import forget_compiled, unwrapped
from t2i_tools.entropy.gain import Rule, find_rule, gain
from t2i_tools.entropy.layers import Grid, Layer, Layout, find_layers, find_layout, read_call, token_side
from t2i_tools.errors import InputError
from t2i_tools.handle import Handle
from t2i_tools.models import controlnets, denoiser, native_size, size_multiple

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

PLUGIN = "entropy scaling"
# Of each key stream: the norm, after which a gain lasts; else the projections, of which fusion decides which one runs.
KEY_STREAMS = (("norm_k", "to_k", "to_qkv"), ("norm_added_k", "add_k_proj", "to_added_qkv"))


def entropy_scaling(
    pipe: DiffusionPipeline | nn.Module,
    *,
    native: tuple[int, int] | None = None,
    rule: str | Rule = "sqrt-log",
    strength: float = 1.0,
    layers: str | None = None,
    steps: Container[int] | None = None,
) -> Handle:
    """Image self-attention as softmax(q k^T sqrt(log_T N / d)), for any size (Jin et al. 2023, arXiv 2306.08645).

    N tokens a layer sees now, T in training; at the native size nothing changes, to the bit. Lasts until the handle's
    `remove()`, whose `report()` tells N, T and gain of each layer, and whether it acted in the last call.

    pipe: a pipeline, whose ControlNets are scaled as well, as trained at its size; or its denoiser, which is scaled
    alone. native: the size it was trained at, (height, width) in pixels, where the config does not say; of a bare
    denoiser in its own latents (packed ones: tokens). rule: "sqrt-log", "log" or a callable (N, T) -> gain. strength:
    power of the gain. layers: regular expression on the names of the layers to scale; a ControlNet's begin with
    "controlnet". steps: those to scale, counted from 0, for instance range(10). Gradient checkpointing is exact as long
    as the backward pass follows its own forward pass. Quantised, offloaded and compiled models, LoRAs, adapters and
    attention backends may come before or after it; a ControlNet that takes another's place is scaled by a new call.
    Raises UnsupportedModelError or InputError.
    """
    models = {"": denoiser(pipe)} | {f"{place}.": net for place, net in controlnets(pipe).items()}
    chosen = select({name: unwrapped(model) for name, model in models.items()}, layers)
    grid, scale = native_grid(pipe, native), partial(gain, rule=find_rule(rule), strength=strength)
    keys: dict[nn.Module, KeyGain] = {}  # by attention: Z-Image's ControlNet runs some of its transformer's
    scalings = {}
    for root, found in chosen.items():
        gains = [keys.setdefault(layer.attention, KeyGain(layer)) for layer in found]
        scalings[root] = Scaling(find_layout(root), gains, grid, scale, steps)
    for model in models.values():
        forget_compiled(model)
    handles = [Handle(root, PLUGIN, partial(report, list(scalings.values()))) for root in scalings]
    for handle in handles[1:]:
        handles[0].on_remove(handle.remove)
    for handle, (root, scaling) in zip(handles, scalings.items(), strict=True):
        handle.on_remove(scaling.end)
        handle.on_remove(root.register_forward_pre_hook(scaling.before_call, with_kwargs=True).remove)
        scaling.bind()
    return handles[0]


def select(roots: Mapping[str, nn.Module], pattern: str | None) -> dict[nn.Module, list[Layer]]:
    """The image self-attentions of each root whose names, after that of their root, match. Raises InputError."""
    found = {
        root: [replace(layer, name=name + layer.name) for layer in find_layers(root, optional=name != "")]
        for name, root in roots.items()
    }
    try:
        chosen = {
            root: [layer for layer in layers if re.search(pattern or "", layer.name)] for root, layers in found.items()
        }
    except re.error as error:
        raise InputError(f"layers={pattern!r} is no regular expression: {error}") from error
    if not any(chosen.values()):
        example = next(iter(found.values()))[0].name
        raise InputError(f"layers={pattern!r} matches none, for instance not {example}")
    return chosen


def native_grid(pipe: DiffusionPipeline | nn.Module, native: tuple[int, int] | None) -> Grid:
    """The image tokens in training, (rows, columns). Raises InputError."""
    model = unwrapped(denoiser(pipe))
    native = native or native_size(pipe)
    if native is None:
        raise InputError(
            f"{type(model).__name__} does not say at which size it was trained: pass native=(height, width)"
        )
    side = token_side(model, find_layout(model)) if isinstance(pipe, nn.Module) else size_multiple(pipe)
    match native:
        case [int(height), int(width)] if min(height, width) >= side:
            return height // side, width // side
    raise InputError(f"native={native!r} is no size: pass (height, width), each at least {side}")


class Scaling:
    """Sets the gain of every layer before each call of a denoiser or ControlNet."""

    def __init__(
        self,
        layout: Layout,
        keys: list[KeyGain],
        native: Grid,
        gain: Callable[[int, int], float],
        steps: Container[int] | None,
    ) -> None:
        self.layout = layout
        self.native = native
        self.gain = gain
        self.steps = steps
        self.clock = StepClock()
        self.keys = keys
        self.last: list[dict[str, Any]] = []

    @torch.compiler.disable  # traced, it would compile anew for every size
    def before_call(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Root pre-hook: set the gains for the tokens of this call."""
        if not self.keys:  # removed, but compiled into what calls it
            return
        call = read_call(model, self.layout, args, kwargs)
        if (call.arguments.get("cross_attention_kwargs") or {}).get("base_sequence_length"):
            raise InputError(
                "LuminaPipeline already scales its attention by itself: pass proportional_attn=False to it"
            )
        active = self.steps is None or self.clock.tick(call.time) in self.steps
        for key in self.keys:
            key.n = key.layer.tokens(self.layout, call.grid, call.text)
            key.t = key.layer.tokens(self.layout, self.native, call.text)
            key.gain = self.gain(key.n, key.t) if active else 1.0
            key.ran = False
        self.bind()

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


def report(scalings: Sequence[Scaling]) -> list[dict[str, Any]]:
    """The rows of all, each layer's once; warns when none has acted."""
    by_layer: dict[str, dict[str, Any]] = {}
    for row in (row for scaling in scalings for row in scaling.rows()):
        by_layer.setdefault(row["layer"], row)
    rows = list(by_layer.values())
    if not any(row["acted"] for row in rows):
        warnings.warn(f"entropy scaling did nothing: {_why(rows)}", stacklevel=3)
    return rows


def _why(rows: list[dict[str, Any]]) -> str:
    if all(row["N"] is None for row in rows):
        return "the model has not been called since"
    if all(row["N"] == row["T"] for row in rows):
        return "this is the native size, N = T in every layer"
    if all(row["gain"] == 1.0 for row in rows):
        return "the last step is none of `steps`, or the rule gives 1"
    return "no layer's hook was reached"


class KeyGain:
    """Keeps a gain multiplied into the keys of one attention, whatever LoRA or fusion puts in their way.

    softmax(gain q k^T) = softmax(q (gain k)^T), whichever backend computes it.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.n: int | None = None
        self.t: int | None = None
        self.gain = 1.0
        self.ran = False
        self._bound: list[tuple[nn.Module, Any]] = []

    def bind(self) -> None:
        """Move the hooks to where the keys now come from, unless they are there."""
        modules = list(key_modules(self.layer.attention))
        if len(modules) == len(self._bound) and all(
            m is b for (m, _), (b, _) in zip(modules, self._bound, strict=True)
        ):
            return
        self.unbind()
        self._bound = [(m, m.register_forward_hook(self.scale_third if f else self.scale)) for m, f in modules]

    def unbind(self) -> None:
        """Take the hooks off, also those that a quantised module has copied from the one it replaces."""
        for _, hook in self._bound:
            hook.remove()
        self._bound = []
        for module, _ in key_modules(self.layer.attention):
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


def key_modules(attention: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
    """The modules whose output the keys are, each with whether it gives queries and values beside them."""
    for norm, plain, fused in KEY_STREAMS:
        if getattr(attention, norm, None) is not None:
            yield getattr(attention, norm), False
            continue
        for name in (plain, fused):
            if getattr(attention, name, None) is not None:
                yield getattr(attention, name), name == fused


class StepClock:
    """Numbers the denoising steps by the timesteps that a denoiser is called with.

    The same timestep again is the same step (guidance may call twice); one that goes back begins a new image.
    """

    def __init__(self) -> None:
        self.step = 0
        self._time: float | None = None
        self._rises: bool | None = None

    def tick(self, time: float) -> int:
        """The number of the step, from 0."""
        if self._time is not None and time != self._time:
            rises = time > self._time
            back = self._rises is not None and rises != self._rises
            self.step, self._rises = (0, None) if back else (self.step + 1, rises)
        self._time = time
        return self.step
