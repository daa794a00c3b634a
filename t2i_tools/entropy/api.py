"""Entropy scaling of a pipeline: its denoiser and its ControlNets."""

from __future__ import annotations

import re
import warnings
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from t2i_tools.entropy.formula import Rule, Strength, find_rule, find_strength, gain
from t2i_tools.entropy.hooks import KeyGain, Layer, Scaling, check_processors, find_layers
from t2i_tools.errors import InputError
from t2i_tools.handle import Handle
from t2i_tools.models.anatomy import controlnets, denoiser, other_denoisers
from t2i_tools.models.compiled import forget_compiled, unwrapped
from t2i_tools.models.families import find_family, find_layout
from t2i_tools.models.native import native_grid

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

PLUGIN = "entropy scaling"


def entropy_scaling(
    pipe: DiffusionPipeline | nn.Module,
    *,
    native: tuple[int, int] | None = None,
    rule: str | Rule = "sqrt_log",
    strength: Strength = 1.0,
    layers: str | None = None,
    steps: Container[int] | None = None,
) -> Handle:
    """Scale the image self-attention of a pipeline, so that it draws at sizes it was not trained at.

    Attention becomes softmax(q k^T sqrt(log_T N / d)), with N the image tokens that a layer sees now and T those in
    training; at the native size nothing changes, to the bit. Where the text is in N, the longest prompt of a batch
    counts for all. Gradient checkpointing is exact as long as the backward pass follows its own forward pass.
    Quantized, offloaded and compiled models, LoRAs, adapters and attention backends may come before or after it; a
    ControlNet that takes another's place is scaled by a new call.

    Args:
        pipe: A pipeline, whose ControlNets are scaled as well, as trained at its size; or its denoiser, which is scaled
            alone.
        native: The size it was trained at, (height, width) in pixels, where the configuration does not say; of a bare
            denoiser in its own latents (packed ones: tokens).
        rule: "sqrt_log" (the default), "log", or a callable (N, T) -> gain.
        strength: Power of the gain, 1 by default; "auto" takes `formula.auto_strength`, a stronger one below the
            native size.
        layers: Regular expression on the names of the layers to scale, all by default; a ControlNet's begin with
            "controlnet".
        steps: The denoising steps to scale, counted from 0, for instance range(10); all by default.

    Returns:
        A handle, whose `report()` gives N, T and gain of each layer, and whether it acted in the last call.

    Raises:
        InputError: The native size is not known, or a rule, a size or a pattern of layers does not do.
        UnsupportedModelError: The denoiser has no attention that can be scaled.

    Source: Jin et al. 2023, arXiv 2306.08645; "log" and `strength` are variations of it.

    Example:
        >>> with t2i.entropy_scaling(pipe) as handle:
        ...     image = pipe("two cats", height=128, width=192).images[0]
        >>> handle.report()[0]["acted"]
        True
    """
    beside = controlnets(pipe) | other_denoisers(pipe)
    models = {"": denoiser(pipe)} | {f"{place}.": net for place, net in beside.items()}
    for model in models.values():
        check_processors(unwrapped(model))
    chosen = select({name: unwrapped(model) for name, model in models.items()}, layers)
    grid, scale = native_grid(pipe, native), partial(gain, rule=find_rule(rule), strength=find_strength(strength))
    keys: dict[nn.Module, KeyGain] = {}  # by attention: Z-Image's ControlNet runs some of its transformer's
    scalings = {}
    for root, found in chosen.items():
        gains = [keys.setdefault(layer.attention, KeyGain(layer, find_layout(root).on_queries)) for layer in found]
        scalings[root] = Scaling(find_layout(root), gains, grid, scale, steps, pipe)
    for model in models.values():
        forget_compiled(model)
        _warn_of_others(unwrapped(model))
    handles = [
        Handle(root, PLUGIN, partial(report, list(scalings.values())), call_arguments=_call_arguments(root))
        for root in scalings
    ]
    for handle in handles[1:]:
        handles[0].on_remove(handle.remove)
    for handle, (root, scaling) in zip(handles, scalings.items(), strict=True):
        handle.on_remove(scaling.end)
        handle.on_remove(root.register_forward_pre_hook(scaling.before_call, with_kwargs=True).remove)
        scaling.bind()
    return handles[0]


def _call_arguments(root: nn.Module) -> Mapping[str, Any]:
    """Arguments of the pipeline's call that switch off its own scaling by size."""
    own = find_family(root).own_scaling
    return {} if own is None else own.off


def _warn_of_others(root: nn.Module) -> None:
    """Say which attentions see the image beside other tokens, and keep their entropy as it is."""
    if others := [name for name, _ in root.named_modules() if name.endswith(".fuser.attn")]:
        warnings.warn(
            f"{len(others)} attentions over the image and its boxes (GLIGEN) are not scaled, for instance {others[0]}",
            stacklevel=3,
        )


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
        raise InputError(f"layers={pattern!r} is not a regular expression: {error}") from error
    if not any(chosen.values()):
        example = next(iter(found.values()))[0].name
        raise InputError(f"layers={pattern!r} matches none, for instance not {example}")
    return chosen


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
        return "the model has not been called since it was applied"
    if all(row["N"] == row["T"] for row in rows):
        return "this is the native size, N = T in every layer"
    if all(row["gain"] == 1.0 for row in rows):
        return "the last step is none of `steps`, or the rule gives 1"
    return "no layer's hook was reached"
