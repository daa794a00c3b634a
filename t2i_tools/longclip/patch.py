"""Long prompts for a pipeline: its tokenizers lay the prompt out in windows, its text encoders join what they make."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.handle import Handle, active_handle
from t2i_tools.longclip.adopt import adopt, fits, told
from t2i_tools.longclip.carried import PromptEmbeds, PromptIds, plain
from t2i_tools.longclip.checkpoint import load_long_clip
from t2i_tools.longclip.reader import METHODS, PLUGIN, Method, Reader, attach_reader
from t2i_tools.longclip.stretch import STOCK, positions, set_attribute, stock_rows, stretch_clip
from t2i_tools.models import TextEncoder, text_encoders

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import DiffusionPipeline

Weights: TypeAlias = "str | Path | nn.Module"
ARGUMENTS = ("input_ids", "attention_mask", "position_ids")
POOLED = ("pooler_output", "text_embeds")


def long_prompts(
    pipe: DiffusionPipeline,
    method: Method = "stretch",
    *,
    weights: Weights | Mapping[str, Weights] | None = None,
    syntax: bool = True,
) -> Handle:
    """Let the CLIP text encoders of a pipeline read prompts and negative prompts of any length.

    method: "chunk" reads windows of 77 tokens one by one, as many as the longer of the two needs, and joins their
    hidden states. "stretch" makes the windows 248 long (`stretch_clip`). "truncate" cuts as the plain pipeline does,
    and says what. The pooled vector is the first window's. T5 stays as it is. With all of them, prompts that 77 tokens
    hold stay in a window of 77, and equal the plain pipeline's to the bit, unless weights have been exchanged.

    weights: a Long-CLIP for "stretch", as `load_long_clip` reads or returns it, which every text encoder that it fits
    takes over, or {"text_encoder": ...}; the others are stretched as they are.

    syntax: read "(word:1.3)", "(word)", "[word]" as weights and BREAK as the beginning of a new window, as
    AUTOMATIC1111 writes them. A weight w turns the hidden state z of a token into e + w (z - e), e being that of an
    empty prompt at the same place, as in ComfyUI: 0 is the word unsaid.

    Edits text encoders and tokenizers until the handle's `remove()`; its `report()` tells of the longest prompt read.
    Raises UnsupportedModelError, ModelError or InputError.
    """
    check_method(method, weights)
    parts, readers = clip_encoders(pipe), {}
    tuned = find_weights(parts, weights)
    for part in parts:
        if earlier := active_handle(part.encoder, PLUGIN):
            earlier.remove()
        # Two text encoders may share a tokenizer.
        readers.setdefault(id(part.tokenizer), Reader(part.name, part.encoder, part.tokenizer, method, syntax))
    handles = [Handle(part.encoder, PLUGIN, partial(map, Reader.row, list(readers.values()))) for part in parts]
    for handle in handles[1:]:
        handles[0].on_remove(handle.remove)
    try:
        for handle, part in zip(handles, parts, strict=True):
            short = None
            if part.name in tuned:
                adopt(handle, part.encoder, tuned[part.name])
            elif method == "stretch" and positions(part.encoder) == STOCK:
                handle.on_remove(stretch_clip(part.encoder, part.tokenizer).remove)
                set_attribute(handle, part.tokenizer, "model_max_length", STOCK)  # longer prompts ask for more
                short = stock_rows(STOCK)
            WindowedEncoder(readers[id(part.tokenizer)], short).attach(handle, part.encoder)
        for reader in readers.values():
            handles[0].on_remove(attach_reader(reader).remove)
        _check_lengths(parts)
    except BaseException:
        handles[0].remove()
        raise
    return handles[0]


def check_method(method: str, weights: object = None) -> None:
    """Raises InputError for an unknown method, and for weights that do not go with it."""
    if method not in METHODS:
        raise InputError(f"unknown method {method!r} for long prompts: choose {', '.join(METHODS)}")
    if weights is not None and method != "stretch":
        raise InputError(f"weights of a Long-CLIP go with method 'stretch', not {method!r}")


def is_clip(part: TextEncoder) -> bool:
    """Whether it reads a fixed number of positions, as CLIP does."""
    return part.tokenizer is not None and str(part.encoder.config.model_type).startswith("clip")


def clip_encoders(pipe: DiffusionPipeline) -> list[TextEncoder]:
    """A pipeline's text encoders that are CLIP. Raises UnsupportedModelError when there are none."""
    found = list(filter(is_clip, text_encoders(pipe)))
    if not found:
        raise UnsupportedModelError(f"{type(pipe).__name__} has no CLIP text encoder whose prompts need lengthening")
    return found


def find_weights(parts: list[TextEncoder], weights: Weights | Mapping[str, Weights] | None) -> dict[str, nn.Module]:
    """The Long-CLIP of each text encoder that takes one. Raises UnsupportedModelError, ModelError or InputError."""
    if isinstance(weights, Mapping):
        if unknown := weights.keys() - {part.name for part in parts}:
            raise InputError(
                f"weights for {sorted(unknown)[0]!r}: the pipeline's are {', '.join(p.name for p in parts)}"
            )
        return {name: _opened(source) for name, source in weights.items()}
    if weights is None:
        return {}
    model = _opened(weights)
    found = {part.name: model for part in parts if fits(part.encoder, model)}
    if not found:
        raise UnsupportedModelError(
            f"the weights are of {told(model)}, the pipeline's of {', '.join(told(p.encoder) for p in parts)}"
        )
    return found


def _opened(weights: Weights) -> nn.Module:
    if not isinstance(weights, nn.Module):
        return load_long_clip(weights)
    if positions(weights) <= STOCK:
        raise UnsupportedModelError(
            f"weights has {positions(weights)} positions: it is a plain CLIP, not a stretched one"
        )
    return weights


class WindowedEncoder:
    """Hooks by which a text encoder reads windows one by one and gives their hidden states in a row.

    short: the positions of a window that is no longer than before the stretching, where they are not 0, 1, 2...
    """

    def __init__(self, reader: Reader, short: Tensor | None = None) -> None:
        self.reader, self.short = reader, short
        self._weights: Tensor | None = None
        self._windows = 0
        self._as_tuple = False

    def attach(self, handle: Handle, encoder: nn.Module) -> None:
        """Put the hooks on a text encoder until the handle ends. Others see windows, whenever they came."""
        handle.on_remove(encoder.register_forward_pre_hook(self.before, prepend=True, with_kwargs=True).remove)
        handle.on_remove(encoder.register_forward_hook(self.after, with_kwargs=True).remove)

    def before(self, encoder: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict] | None:
        """Pre-hook: ids (B, windows size) -> (B windows, size)."""
        kwargs = dict(zip(ARGUMENTS, args, strict=False)) | kwargs
        ids, self._windows = kwargs.get("input_ids"), 0
        if not isinstance(ids, PromptIds):  # not of our tokenizer
            return None
        size = min(self.reader.size, ids.shape[1])
        self._windows, self._weights = ids.shape[1] // size, ids.weights
        self._as_tuple = kwargs.get("return_dict") is False
        kwargs |= {"input_ids": plain(ids).reshape(-1, size), "return_dict": True, **self._positions(ids, size)}
        if kwargs.get("attention_mask") is not None:
            kwargs["attention_mask"] = kwargs["attention_mask"].reshape(-1, size)
        return (), kwargs

    def after(self, encoder: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
        """Hook: hidden states (B windows, size, d) -> (B, windows size, d), weighted; pooled vectors of the first."""
        if not self._windows:
            return None
        full, size = self.reader.size, kwargs["input_ids"].shape[1]
        filling = self._read_nothing(encoder, kwargs, full)
        weighted = bool((self._weights != 1).any())
        empty = self._read_nothing(encoder, kwargs, size) if weighted and size != full else filling
        values = {}
        for name, value in output.items():
            if name in POOLED:
                values[name] = value[:: self._windows]
            elif name == "last_hidden_state":
                values[name] = self._join(value, empty[name], filling[name])
            elif name == "hidden_states":
                values[name] = tuple(map(self._join, value, empty[name], filling[name]))
            else:
                values[name] = value
        joined = type(output)(**values)
        return joined.to_tuple() if self._as_tuple else joined

    def _positions(self, ids: Tensor, size: int) -> dict[str, Tensor]:
        if self.short is None or size == self.reader.size:
            return {}
        return {"position_ids": self.short.to(ids.device)[None]}

    def _join(self, states: Tensor, empty: Tensor, filling: Tensor) -> PromptEmbeds:
        joined = states.reshape(-1, self._windows * states.shape[1], states.shape[2])
        weights = self._weights.to(joined)[..., None]  # (B, rows, 1)
        if (weights != 1).any():
            nothing = empty.repeat(1, self._windows, 1)
            joined = torch.where(weights == 1, joined, nothing + weights * (joined - nothing))
        return PromptEmbeds.of(joined, filling[0])

    @torch.no_grad()
    def _read_nothing(self, encoder: nn.Module, kwargs: dict[str, Any], size: int) -> Mapping[str, Any]:
        empty, ids = self.reader.empty(size), kwargs["input_ids"]
        device = ids.device
        kwargs = {name: value for name, value in kwargs.items() if name != "position_ids"}
        kwargs |= {"input_ids": torch.tensor([empty.ids], device=device), **self._positions(ids, size)}
        if kwargs.get("attention_mask") is not None:
            kwargs["attention_mask"] = torch.tensor([empty.mask], device=device)
        return encoder.forward(**kwargs)


def _check_lengths(parts: list[TextEncoder]) -> None:
    """The hidden states of several text encoders are joined row by row. Raises InputError."""
    lengths = {part.name: positions(part.encoder) for part in parts}
    if len(set(lengths.values())) > 1:
        told = " and ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(f"the text encoders read windows of different lengths, {told} tokens: use method 'stretch'")
