"""The patching: tokenizers that lay prompts out in windows, text encoders that read them one by one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from t2i_tools.handle import Handle
from t2i_tools.longclip.reader import Reader
from t2i_tools.longclip.tensors import PromptEmbeds, PromptIds, plain
from t2i_tools.longclip.weighted import TextReader
from t2i_tools.models.compiled import forget_compiled
from t2i_tools.models.prompts import prompt_reader, set_prompt_reader

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLUGIN = "long prompts"
ARGUMENTS = ("input_ids", "attention_mask", "position_ids")
POOLED = ("pooler_output", "text_embeds")
TOO_LONG = "sequence-length-is-longer-than-the-specified-maximum"


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
        forget_compiled(encoder)
        handle.on_remove(encoder.register_forward_pre_hook(self.before, prepend=True, with_kwargs=True).remove)
        handle.on_remove(encoder.register_forward_hook(self.after, with_kwargs=True).remove)

    @torch.compiler.disable
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

    @torch.compiler.disable
    def after(self, encoder: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
        """Hook: hidden states (B windows, size, d) -> (B, windows size, d), weighted; pooled vectors of the first."""
        weights = self._weights
        if weights is None or not self._windows:
            return None
        full, size = self.reader.size, kwargs["input_ids"].shape[1]
        filling = self._read_nothing(encoder, kwargs, full)
        weighted = bool(torch.any(weights != 1))
        empty = self._read_nothing(encoder, kwargs, size) if weighted and size != full else filling
        values = {}
        pooled = self._weighed_pooled(encoder, kwargs, output, weights) if weighted and self.reader.pooled else output
        for name, value in output.items():
            if name in POOLED:
                values[name] = pooled[name][:: self._windows]
            elif name == "last_hidden_state":
                values[name] = self._join(weights, value, empty[name], filling[name])
            elif name == "hidden_states":
                values[name] = tuple(map(partial(self._join, weights), value, empty[name], filling[name]))
            else:
                values[name] = value
        joined = type(output)(**values)
        return joined.to_tuple() if self._as_tuple else joined

    def _positions(self, ids: Tensor, size: int) -> dict[str, Tensor]:
        if self.short is None or size == self.reader.size:
            return {}
        return {"position_ids": self.short.to(ids.device)[None]}

    def _join(self, weights: Tensor, states: Tensor, empty: Tensor, filling: Tensor) -> PromptEmbeds:
        joined = states.reshape(-1, self._windows * states.shape[1], states.shape[2])
        weights = weights.to(joined)[..., None]  # (B, rows, 1)
        if (weights != 1).any():
            nothing = empty.repeat(1, self._windows, 1)
            joined = torch.where(weights == 1, joined, nothing + weights * (joined - nothing))
        return PromptEmbeds.of(joined, filling[0])

    def _weighed_pooled(
        self, encoder: nn.Module, kwargs: dict[str, Any], output: Any, weights: Tensor
    ) -> dict[str, Tensor]:
        """The pooled vectors p of one window each, by the rule e + w (p - e), e the one without the weighted words.

        Where the denoiser is given the pooled vector alone, a weight would not act otherwise. With several weights
        their differences add up.
        """
        names = [name for name in POOLED if output.get(name) is not None]
        moved = {name: output[name] for name in names}
        for weight in weights[weights != 1].unique().tolist():
            with torch.no_grad():
                without = encoder.forward(**kwargs | self._left_out(kwargs, weights == weight))
            for name in names:
                moved[name] = moved[name] + (weight - 1) * (output[name] - without[name])
        return moved

    def _left_out(self, kwargs: dict[str, Any], words: Tensor) -> dict[str, Tensor]:
        """input_ids, and attention_mask where there is one, without the words, padding in their place at the end."""
        ids = kwargs["input_ids"]
        order = words.to(ids.device).long().argsort(dim=1, stable=True)  # what stays comes first
        behind = torch.arange(ids.shape[1], device=ids.device) >= (~words).sum(1, keepdim=True).to(ids.device)
        shorter = {"input_ids": ids.gather(1, order).masked_fill(behind, self.reader.tokenizer.pad_token_id)}
        if (mask := kwargs.get("attention_mask")) is not None:
            shorter["attention_mask"] = mask.gather(1, order).masked_fill(behind, 0)
        return shorter

    @torch.no_grad()
    def _read_nothing(self, encoder: nn.Module, kwargs: dict[str, Any], size: int) -> Mapping[str, Any]:
        empty, ids = self.reader.empty(size), kwargs["input_ids"]
        device = ids.device
        kwargs = {name: value for name, value in kwargs.items() if name != "position_ids"}
        kwargs |= {"input_ids": torch.tensor([empty.ids], device=device), **self._positions(ids, size)}
        if kwargs.get("attention_mask") is not None:
            kwargs["attention_mask"] = torch.tensor([empty.mask], device=device)
        return encoder.forward(**kwargs)


def attach_reader(reader: Reader | TextReader) -> Handle:
    """From now on the tokenizer answers through the reader where a pipeline asks it, which is for tensors."""
    tokenizer = reader.tokenizer
    handle = Handle(tokenizer, PLUGIN)
    set_prompt_reader(handle, tokenizer, reader)
    handle.on_remove(partial(_restore_class, tokenizer))
    kind: type = type(tokenizer)
    tokenizer.__class__ = reading_class(kind)
    if isinstance(reader, Reader) and TOO_LONG not in tokenizer.deprecation_warnings:  # it would not be true now
        tokenizer.deprecation_warnings[TOO_LONG] = True
        handle.on_remove(partial(tokenizer.deprecation_warnings.pop, TOO_LONG, None))
    return handle


@cache
def reading_class(kind: type[PreTrainedTokenizerBase]) -> type[PreTrainedTokenizerBase]:
    """A tokenizer class like `kind`, whose calls for tensors go to the reader, if there is one: CLIP's only padded."""

    def __call__(self: Any, text: Any = None, *args: Any, **options: Any) -> Any:
        reader = prompt_reader(self)
        unpadded = isinstance(reader, Reader) and not options.get("padding")
        if reader is None or unpadded or options.get("return_tensors") != "pt":
            return kind.__call__(self, text, *args, **options)
        return reader.answer(partial(kind.__call__, self), text, args, options)

    def save_pretrained(self: Any, *args: Any, **options: Any) -> Any:
        """As the plain pipeline needs it, which asks for as many tokens as it says."""
        asked, reader = self.model_max_length, prompt_reader(self)
        self.model_max_length = reader.saved_length(asked) if reader else asked
        try:
            return kind.save_pretrained(self, *args, **options)
        finally:
            self.model_max_length = asked

    # Its name is written into what the tokenizer saves.
    methods = {"__call__": __call__, "save_pretrained": save_pretrained}
    return type(kind.__name__, (kind,), methods | {"__module__": kind.__module__, "t2i_plain": kind})


def _restore_class(tokenizer: Any) -> None:
    if type(tokenizer) is reading_class(plain := getattr(type(tokenizer), "t2i_plain", object)):
        tokenizer.__class__ = plain
