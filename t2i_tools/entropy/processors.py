"""Entropy scaling in diffusers' own form: attention processors, for code that manages processors itself.

Each is the present processor, state and signature included, which is handed a view of its attention: there the module
that gives the keys gives gain times the keys. A processor knows no size, so a hook on the denoiser reads it from each
call.
"""

from __future__ import annotations

import copy
import inspect
import weakref
from collections.abc import Callable, Container
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor, nn

from t2i_tools.entropy.api import PLUGIN, select
from t2i_tools.entropy.formula import Rule, Strength, find_rule, find_strength, gain
from t2i_tools.entropy.hooks import KeyGain, Scaling, check_processors
from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.handle import active_handle
from t2i_tools.models.anatomy import denoiser
from t2i_tools.models.compiled import forget_compiled, unwrapped
from t2i_tools.models.families import find_layout
from t2i_tools.models.native import native_grid

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Processor: TypeAlias = Callable[..., Tensor | tuple[Tensor, ...]]


def entropy_processors(
    pipe: DiffusionPipeline | nn.Module,
    *,
    native: tuple[int, int] | None = None,
    rule: str | Rule = "sqrt_log",
    strength: Strength = 1.0,
    layers: str | None = None,
    steps: Container[int] | None = None,
) -> dict[str, Processor]:
    """Make attention processors that do what `entropy_scaling` does, to the bit, for `set_attn_processor`.

    `entropy_scaling` survives what replaces processors (fused projections, IP-Adapters, xformers); these do not, and
    are for code that manages processors by itself. To take them off, set the earlier ones again, kept from
    `pipe.unet.attn_processors`. ControlNets are left alone.

    Args:
        pipe: A pipeline, or its denoiser.
        native: The size it was trained at, (height, width) in pixels, where the configuration does not say.
        rule: "sqrt_log" (the default), "log", or a callable (N, T) -> gain.
        strength: Power of the gain, 1 by default; "auto" takes `formula.auto_strength`, a stronger one below the
            native size.
        layers: Regular expression on the names of the layers to scale; all by default.
        steps: The denoising steps to scale, counted from 0, for instance range(10); all by default.

    Returns:
        Name -> processor, for all attentions of the denoiser; those that are not scaled keep the processor they have.

    Raises:
        UnsupportedModelError: The denoiser takes no processors, or not for all of its image self-attentions.
        InputError: An argument is out of range, or the denoiser is scaled already.

    Source: Jin et al. 2023, arXiv 2306.08645.

    Example:
        >>> before = pipe.unet.attn_processors
        >>> pipe.unet.set_attn_processor(t2i.entropy_processors(pipe))
        >>> image = pipe("two cats", height=128, width=192).images[0]
        >>> pipe.unet.set_attn_processor(before)
    """
    model = unwrapped(denoiser(pipe))
    if active_handle(model, PLUGIN):
        raise InputError(f"{type(model).__name__} is scaled by entropy_scaling already: remove its handle first")
    check_processors(model)
    chosen = select({"": model}, layers)[model]
    present = dict(getattr(model, "attn_processors", {}))
    if missing := [layer.name for layer in chosen if f"{layer.name}.processor" not in present]:
        raise UnsupportedModelError(
            f"{type(model).__name__} takes no attention processor for {missing[0]}: use entropy_scaling, made of hooks"
        )
    layout = find_layout(model)
    keys = [KeyGain(layer, layout.on_queries) for layer in chosen]
    power = partial(gain, rule=find_rule(rule), strength=find_strength(strength))
    scaling = Scaling(layout, keys, native_grid(pipe, native), power, steps, pipe)
    forget_compiled(denoiser(pipe))
    hook = model.register_forward_pre_hook(scaling.set_gains, with_kwargs=True)
    alive = _Alive()
    weakref.finalize(alive, hook.remove)  # with the last of the processors, which hold it
    return present | {
        f"{key.layer.name}.processor": _scaled(present[f"{key.layer.name}.processor"], key, alive) for key in keys
    }


class _Alive:
    """Lives as long as one of the processors that were made together."""


class AttentionView:
    """An attention as its processor sees it: what gives keys, or queries, gives them times the gain."""

    def __init__(self, attention: nn.Module, key: KeyGain) -> None:
        self._attention, self._gains = attention, key.hooks(attention)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._attention, name)
        for module, hook in self._gains:
            if value is module:
                return partial(_hooked, module, hook)
        return value


def _hooked(module: nn.Module, hook: Any, *args: Any, **kwargs: Any) -> Any:
    return hook(module, args, module(*args, **kwargs))


def _scaled(processor: Any, key: KeyGain, alive: _Alive) -> Any:
    """A copy of a processor, which shares its state but for the view of the attention."""
    kind: type = type(processor)
    scaled = copy.copy(processor)
    scaled.__class__ = scaling_class(kind)
    scaled.t2i_key, scaled.t2i_alive = key, alive
    return scaled


@cache
def scaling_class(kind: type) -> type:
    """A class of processors like `kind`, with its signature, by which attention chooses the arguments."""

    def __call__(self: Any, attn: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return kind.__call__(self, AttentionView(attn, self.t2i_key), *args, **kwargs)

    __call__.__signature__ = inspect.signature(kind.__call__)  # type: ignore[attr-defined]  # which inspect reads
    return type(f"Entropy{kind.__name__}", (kind,), {"__call__": __call__, "__module__": kind.__module__})
