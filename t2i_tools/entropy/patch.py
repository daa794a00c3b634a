"""The gain, multiplied into the keys of a denoiser's image self-attention."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Container, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from t2i_tools.compiled import forget_compiled, unwrapped
from t2i_tools.entropy.gain import Rule, find_rule, gain
from t2i_tools.entropy.layers import Grid, Layer, Layout, find_layers, find_layout, read_call, token_side
from t2i_tools.errors import InputError
from t2i_tools.handle import Handle
from t2i_tools.models import denoiser, native_size, size_multiple

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

    pipe: a pipeline, or its denoiser. native: the size it was trained at, (height, width) in pixels, where the
    config does not say; of a bare denoiser in its own latents (packed ones: tokens). rule: "sqrt-log", "log" or a
    callable (N, T) -> gain. strength: power of the gain. layers: regular expression on the names of the layers to
    scale. steps: those to scale, counted from 0, for instance range(10). Gradient checkpointing is exact as long as
    the backward pass follows its own forward pass. Quantised, offloaded and compiled models, LoRAs, adapters and
    attention backends may come before or after it.
    Raises UnsupportedModelError or InputError.
    """
    model = unwrapped(denoiser(pipe))
    scale = partial(gain, rule=find_rule(rule), strength=strength)
    scaling = Scaling(find_layout(model), select(model, layers), native_grid(pipe, native), scale, steps)
    forget_compiled(denoiser(pipe))
    handle = Handle(model, PLUGIN, scaling.report)
    handle.on_remove(scaling.end)
    handle.on_remove(model.register_forward_pre_hook(scaling.before_call, with_kwargs=True).remove)
    scaling.bind()
    return handle


def select(model: nn.Module, pattern: str | None) -> list[Layer]:
    """The image self-attentions whose names match. Raises InputError."""
    found = find_layers(model)
    try:
        chosen = [layer for layer in found if re.search(pattern or "", layer.name)]
    except re.error as error:
        raise InputError(f"layers={pattern!r} is no regular expression: {error}") from error
    if not chosen:
        raise InputError(f"layers={pattern!r} matches none, for instance not {found[0].name}")
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
    """Sets the gain of every layer before each call of the denoiser."""

    def __init__(
        self,
        layout: Layout,
        layers: list[Layer],
        native: Grid,
        gain: Callable[[int, int], float],
        steps: Container[int] | None,
    ) -> None:
        self.layout = layout
        self.native = native
        self.gain = gain
        self.steps = steps
        self.clock = StepClock()
        self.keys = [KeyGain(layer) for layer in layers]
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
        self.last = self._rows()
        for key in self.keys:
            key.unbind()
            key.gain = 1.0
        self.keys = []

    def report(self) -> list[dict[str, Any]]:
        """layer, N, T, gain, and whether its keys were multiplied in the last call; warns when none were."""
        rows = self._rows() if self.keys else self.last
        if not any(row["acted"] for row in rows):
            warnings.warn(f"entropy scaling did nothing: {self._why(rows)}", stacklevel=3)
        return rows

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {"layer": k.layer.name, "N": k.n, "T": k.t, "gain": k.gain, "acted": k.ran and k.gain != 1.0}
            for k in self.keys
        ]

    def _why(self, rows: list[dict[str, Any]]) -> str:
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
