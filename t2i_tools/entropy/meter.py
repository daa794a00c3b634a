"""The entropy of a denoiser's image self-attention, measured while it runs."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from t2i_tools.compiled import is_compiled, unwrapped
from t2i_tools.entropy.layers import Call, Layer, find_layers, find_layout, read_call
from t2i_tools.entropy.patch import StepClock
from t2i_tools.errors import UnsupportedModelError
from t2i_tools.handle import Handle
from t2i_tools.models import denoiser

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def attention_entropy(pipe: DiffusionPipeline | nn.Module, *, rows: int = 64) -> Handle:
    """Measure H = -sum_j p_ij ln p_ij, p = softmax(q k^T / sqrt(d)), of each image self-attention (Jin et al. 2023).

    `with attention_entropy(pipe) as meter: pipe(...)`, then `meter.report()`: layer, step, N, H and normalised
    (H / ln N, which is 1 where attention is uniform), each a mean over batch, heads and sampled image queries.

    pipe: a pipeline, or its denoiser; with the native attention backend and not compiled, for the softmax is nowhere
    else to be seen. rows: how many queries to sample, evenly spread, so that no N x N matrix is held.
    Raises UnsupportedModelError, also in the call of a pipeline that has another backend.
    """
    model = unwrapped(denoiser(pipe))
    if is_compiled(denoiser(pipe)):
        raise UnsupportedModelError("attention_entropy cannot see into compiled code: measure before torch.compile")
    meter = EntropyMeter(model, rows)
    handle = Handle(model, "entropy meter", meter.report)
    for layer in find_layers(model):
        handle.on_remove(layer.attention.register_forward_pre_hook(partial(meter.enter_layer, layer)).remove)
        handle.on_remove(layer.attention.register_forward_hook(meter.leave_layer).remove)
    handle.on_remove(model.register_forward_pre_hook(meter.before_call, with_kwargs=True).remove)
    handle.on_remove(model.register_forward_hook(meter.after_call, always_call=True).remove)
    return handle


class EntropyMeter:
    """Sums up what each layer shows in each step."""

    def __init__(self, model: nn.Module, rows: int) -> None:
        self.layout = find_layout(model)
        self.rows = rows
        self.clock = StepClock()
        self.call: Call | None = None
        self.layer: Layer | None = None
        self.entropies: dict[tuple[str, int, int], list[torch.Tensor]] = defaultdict(list)
        self._watching = ExitStack()
        self._seen = False

    def before_call(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Root pre-hook."""
        self.call = read_call(model, self.layout, args, kwargs)
        self.clock.tick(self.call.time)
        self._watching.enter_context(_Watch(self))

    def after_call(self, model: nn.Module, args: tuple, output: Any) -> None:
        """Root hook, called after an exception too."""
        self._watching.close()
        self.layer = self.call = None

    def enter_layer(self, layer: Layer, module: nn.Module, args: tuple) -> None:
        """Pre-hook of an attention, which Z-Image's ControlNet runs as well."""
        self.layer, self._seen = layer if self.call else None, False

    def leave_layer(self, module: nn.Module, args: tuple, output: Any) -> None:
        """Hook of an attention."""
        layer, self.layer = self.layer, None
        if layer is not None and not self._seen:
            raise UnsupportedModelError(
                f"the attention backend of {layer.name} does not show its softmax: measure with the native one, by "
                'set_attention_backend("native") or set_attn_processor(AttnProcessor2_0())'
            )

    def read(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        """Measure one call of torch's attention. query: (B, heads, N, d)."""
        if self.layer is None:
            return
        self._seen = True
        chosen = self._image_rows(query.shape[-2]).to(query.device)
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3) if enable_gqa else key
        mask = None if attn_mask is None else attn_mask.expand(*query.shape[:-2], query.shape[-2], key.shape[-2])
        entropy = row_entropy(query[..., chosen, :], key, None if mask is None else mask[..., chosen, :], scale)
        if mask is not None and mask.dtype is torch.bool:  # a text's filling stands among the queries as among the keys
            entropy = entropy[mask[..., 0, :][..., chosen]]
        tokens = self.layer.tokens(self.layout, self.call.grid, self.call.text)
        self.entropies[self.layer.name, self.clock.step, tokens].append(entropy.detach().mean())

    def report(self) -> list[dict[str, Any]]:
        """layer, step, N, H, normalised; warns when there is nothing to tell."""
        if not self.entropies:
            warnings.warn("no attention was measured: the model has not been called since", stacklevel=3)
        means = {key: float(torch.stack(values).mean()) for key, values in self.entropies.items()}
        return [
            {"layer": layer, "step": step, "N": n, "H": mean, "normalised": mean / math.log(max(n, 2))}
            for (layer, step, n), mean in means.items()
        ]

    def _image_rows(self, queries: int) -> torch.Tensor:
        image = math.prod(-(-side // 2**self.layer.level) for side in self.call.grid)
        first = queries - image if self.layer.joint and self.layout.text_first else 0
        return first + torch.linspace(0, image - 1, min(self.rows, image)).round().long()


def row_entropy(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None = None, scale: float | None = None
) -> torch.Tensor:
    """(..., r): H of each row of softmax(query key^T scale). query: (..., r, d), key: (..., N, d)."""
    logits = query.float() @ key.float().mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        logits = logits.masked_fill(~mask, -math.inf) if mask.dtype is torch.bool else logits + mask
    return torch.special.entr(logits.softmax(-1)).sum(-1)


class _Watch(TorchFunctionMode):
    """Shows the meter every call of torch's attention, and changes nothing."""

    def __init__(self, meter: EntropyMeter) -> None:
        super().__init__()
        self.meter = meter

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is F.scaled_dot_product_attention:
            self.meter.read(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))
