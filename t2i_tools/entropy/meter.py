"""The entropy of a denoiser's image self-attention, measured while it runs."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from t2i_tools.entropy.hooks import Layer, find_layers
from t2i_tools.errors import UnsupportedModelError
from t2i_tools.handle import Handle
from t2i_tools.models.anatomy import denoiser
from t2i_tools.models.calls import Attention, AttentionWatcher, DenoiserCall, StepClock, spread
from t2i_tools.models.compiled import is_compiled, unwrapped
from t2i_tools.models.small_maps import small_maps

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def attention_entropy(pipe: DiffusionPipeline | nn.Module, *, queries: int = 64) -> Handle:
    """Measure the entropy H = -sum_j p_ij ln p_ij of each image self-attention, p = softmax(q k^T / sqrt(d)).

    Args:
        pipe: A pipeline, or its denoiser; with the native attention backend and not compiled, for the softmax is
            nowhere else to be seen.
        queries: How many to sample, evenly spread, so that no N x N matrix is held; 64 by default.

    Returns:
        The handle, whose report has one row per layer, step and N, with H in nats and H / ln N ("normalised", 1 where
        attention is uniform), each a mean over batch, heads and sampled image queries.

    Raises:
        UnsupportedModelError: The denoiser is unknown or compiled; in the call, it runs on another attention backend.

    Source: Jin et al. 2023, arXiv 2306.08645.

    Example:
        >>> with t2i.attention_entropy(pipe) as meter:
        ...     image = pipe("two cats").images[0]
        >>> sorted(meter.report()[0])
        ['H', 'N', 'layer', 'normalised', 'step']
    """
    model = unwrapped(denoiser(pipe))
    if is_compiled(denoiser(pipe)):
        raise UnsupportedModelError("attention_entropy cannot see into compiled code: measure before torch.compile")
    meter = EntropyMeter(queries, pipe)
    handle = Handle(model, "entropy meter", meter.report)
    watcher = AttentionWatcher(model, meter.read)
    watcher.attach(handle, [(layer.attention, layer.name, layer) for layer in find_layers(model)])
    return handle


class EntropyMeter:
    """Sums up what each layer shows in each step."""

    def __init__(self, queries: int, pipe: Any = None) -> None:
        self.queries = queries
        self.clock = StepClock(pipe)
        self.entropies: dict[tuple[str, int, int], list[torch.Tensor]] = defaultdict(list)

    def read(self, layer: Layer, call: DenoiserCall, attention: Attention) -> None:
        """Measure one call of torch's attention."""
        small = small_maps(call)
        image, queries, keys = (
            call.layers * layer.image_tokens(call.grid, small),
            attention.query.shape[-2],
            attention.key.shape[-2],
        )
        text = call.seen_text + call.extra_text
        if call.layout.on_queries and (queries < image or keys < image + text):
            return  # text by itself
        first = queries - image - call.references if layer.joint and call.layout.text_first else 0
        chosen = spread(image, self.queries, first)
        entropy = row_entropy(attention.weights(chosen))
        mask = attention.mask
        if mask is not None and mask.dtype is torch.bool and keys == queries:
            # Where texts of a batch differ in length, padding stands among the last queries as among the keys.
            middle = mask[..., int(chosen[len(chosen) // 2]), :]
            entropy = entropy[middle[..., chosen.to(mask.device)]]
        tokens = layer.tokens(call.layout, call.grid, text, call.references, call.layers, small)
        self.entropies[layer.name, self.clock.tick(call.time), tokens].append(entropy.detach().mean())

    def report(self) -> list[dict[str, Any]]:
        """layer, step, N, H, normalised; warns when there is nothing to report."""
        if not self.entropies:
            warnings.warn("no attention was measured: the model has not been called since it was applied", stacklevel=3)
        means = {key: float(torch.stack(values).mean()) for key, values in self.entropies.items()}
        return [
            {"layer": layer, "step": step, "N": n, "H": mean, "normalised": mean / math.log(max(n, 2))}
            for (layer, step, n), mean in means.items()
        ]


def row_entropy(weights: torch.Tensor) -> torch.Tensor:
    """H of each row of attention weights. weights: (..., N), each row of sum 1. Returns (...), in nats."""
    return torch.special.entr(weights).sum(-1)
