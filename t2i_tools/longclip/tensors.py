"""Tensors with a companion that survives what pipelines do to them between tokenizer, text encoder and denoiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i_tools.errors import InputError

MOVES = {Tensor.to, Tensor.cpu, Tensor.cuda, Tensor.clone, Tensor.detach, Tensor.contiguous}
CASTS = {Tensor.half, Tensor.float, Tensor.bfloat16, Tensor.type}
REPEATS = {Tensor.repeat, Tensor.repeat_interleave, Tensor.expand, Tensor.view, Tensor.reshape}
# Of each row by itself, with other arguments that do not depend on the rows.
ROWWISE = {F.layer_norm, F.rms_norm, F.dropout, Tensor.mul, Tensor.div, Tensor.__mul__, Tensor.__truediv__}
ROWWISE |= {torch.mul, torch.div, torch.zeros_like, F.pad}  # of an absent negative prompt; up to the width of T5
CATS = {torch.cat, torch.concat, torch.concatenate}


class PromptIds(Tensor):
    """Token ids (B, rows) that know the weight of each token, (B, rows), as long as they are ids of these rows."""

    weights: Tensor

    @classmethod
    def of(cls, ids: Tensor, weights: Tensor) -> PromptIds:
        carried = _plainly(Tensor.as_subclass, (ids, cls))
        carried.weights = weights
        return carried

    @classmethod
    def __torch_function__(cls, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict | None = None):
        out = _plainly(func, args, kwargs)
        if isinstance(out, Tensor) and not (out.is_floating_point() or out.dtype is torch.bool):
            if func is Tensor.__getitem__:
                return cls.of(out, args[0].weights[args[1]])
            if func in CATS:  # CogView4 puts its padding before the ids
                sides = [part.weights if isinstance(part, cls) else torch.ones(part.shape) for part in args[0]]
                return cls.of(out, torch.cat(sides, *args[1:], **(kwargs or {})))
            own = next((arg for arg in args if isinstance(arg, cls)), None)
            if own is not None and out.shape == own.weights.shape:
                return cls.of(out, own.weights)
        return out


class PromptEmbeds(Tensor):
    """Hidden states (B, rows, d) of windows, which grow by empty windows where they are joined with more of them.

    A pipeline encodes the prompt before it looks at the negative prompt, and joins the two at last. empty: hidden
    states (window, d) of a window without words. end: rows that are windows; what follows (SD3's T5) stays behind them.
    """

    empty: Tensor
    end: int

    @classmethod
    def of(cls, states: Tensor, empty: Tensor, end: int | None = None) -> PromptEmbeds:
        carried = _plainly(Tensor.as_subclass, (states, cls))
        carried.empty, carried.end = empty, states.shape[1] if end is None else end
        return carried

    @classmethod
    def __torch_function__(cls, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict | None = None):
        if func in CATS:
            return cls._joined(*args, **(kwargs or {}))
        out = _plainly(func, args, kwargs)
        if func in MOVES | CASTS | REPEATS:
            return cls.of(out, args[0].empty, args[0].end)
        if func in ROWWISE and isinstance(args[0], cls) and not _has_rows(args[1:]):
            return cls.of(out, _plainly(func, (args[0].empty, *args[1:]), kwargs), args[0].end)
        return out

    @classmethod
    def _joined(cls, tensors: Sequence[Tensor], dim: int = 0, **options: Any) -> Tensor:
        """torch.cat, the shorter ones grown before they are joined along another side than the rows."""
        own = [tensor for tensor in tensors if isinstance(tensor, cls)]
        along = dim % own[0].ndim
        if along != 1:
            behind = own[0].shape[1] - own[0].end
            end = max(tensor.end if isinstance(tensor, cls) else tensor.shape[1] - behind for tensor in tensors)
            tensors = [grown(tensor, end) if isinstance(tensor, cls) else tensor for tensor in tensors]
            if len({tensor.shape[1] for tensor in tensors}) > 1:
                rows = " and ".join(str(tensor.shape[1]) for tensor in tensors)
                raise InputError(f"prompts of {rows} rows cannot be combined: encode both while long_prompts is on")
        else:
            end = tensors[0].end if tensors[0] is own[0] else 0
        out = _plainly(torch.cat, (tensors, along), options)
        if along == 2 and len(own) == len(tensors):
            return cls.of(out, torch.cat([tensor.empty.to(out) for tensor in own], 1), end)
        if end and (along == 1 or all(tensor.empty is own[0].empty for tensor in own)):
            return cls.of(out, own[0].empty, end)
        return out


def grown(embeds: PromptEmbeds, end: int) -> Tensor:
    """With empty windows after its own, up to row `end`, a window that is short made whole; a plain tensor."""
    states = plain(embeds)
    if end == embeds.end:
        return states
    empty = embeds.empty.to(states)
    filling = empty.repeat(-(-end // len(empty)), 1)[embeds.end : end].expand(len(states), -1, -1)
    return torch.cat([states[:, : embeds.end], filling, states[:, embeds.end :]], 1)


def _has_rows(arguments: Sequence[Any]) -> bool:
    """Whether a tensor among them has an entry per row: (B, rows, 1) and the like."""
    return any(isinstance(one, Tensor) and one.ndim > 1 for one in arguments)


def plain(tensor: Tensor) -> Tensor:
    """Without its companion."""
    return _plainly(Tensor.as_subclass, (tensor, Tensor))


def _plainly(func: Callable, args: tuple, kwargs: dict | None = None) -> Any:
    with torch._C.DisableTorchFunctionSubclass():  # the way that PyTorch's notes on extending it name
        return func(*args, **(kwargs or {}))
