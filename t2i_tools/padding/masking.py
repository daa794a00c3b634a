"""Gives a denoiser the text of a padding policy: hides rows by its mask where it reads one, else leaves them out."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from t2i_tools.handle import Handle
from t2i_tools.models.calls import DenoiserCall, call_arguments, read_call
from t2i_tools.models.families import TextMasking, TextSite, find_family
from t2i_tools.padding.encoding import recognise
from t2i_tools.padding.hooks import ForeignCallWarning, find_blocks, text_argument, text_span
from t2i_tools.padding.policies import PolicyText

# Those that have one entry per row of the text, of some families for each item.
PER_ROW = ("txt_ids", "text_rope_pos")


class RowMasking:
    """Gives the calls of a denoiser other text, and hides rows of it, while its pipeline's call is followed."""

    def __init__(self, model: nn.Module, how: TextMasking, policy: str) -> None:
        self.model, self.how, self.policy = model, how, policy
        self.family = find_family(model)
        self.known: Sequence[PolicyText] | None = None
        self.outside = ForeignCallWarning(f"the padding policy {policy!r}")
        self.calls = self.items = self.hidden = self.replaced = 0
        self._call: DenoiserCall | None = None
        self._texts: list[PolicyText | None] = []
        self._met: set[int] = set()

    def attach(self, handle: Handle) -> None:
        """Act on the denoiser until the handle ends."""
        if self.how.block_argument is not None:
            handle.on_remove(self.model.register_forward_pre_hook(self.before_call, with_kwargs=True).remove)
            for block, site in self._masked_blocks():
                hook = partial(self.before_block, site)
                handle.on_remove(block.register_forward_pre_hook(hook, with_kwargs=True).remove)
        elif self.how.argument is not None:
            handle.on_remove(self.model.register_forward_pre_hook(self.set_mask, with_kwargs=True).remove)
        else:
            self.replace_forward(handle)

    @contextmanager
    def following(self, known: Sequence[PolicyText], prompts: int) -> Iterator[None]:
        """Act on the texts of one call of the pipeline, whose prompts come first; warn where none of them was met."""
        self.known, calls = known, self.calls
        self._met = set()
        try:
            yield
        finally:
            self.known = None
        if self.calls > calls and self._met.isdisjoint(map(id, known[:prompts])):
            warnings.warn(
                f"the padding policy {self.policy!r} had no effect on the prompt: the text that reached the denoiser "
                "is not what encode_prompt returned. Remove plugins or callbacks that change the text",
                stacklevel=5,
            )

    def report(self) -> Iterator[dict[str, Any]]:
        """What was done: texts are those of each item in each call of the denoiser."""
        yield {
            "policy": self.policy,
            "calls": self.calls,
            "texts": self.items,
            "rows replaced": self.replaced,
            "rows hidden": self.hidden,
        }

    def _masked_blocks(self) -> list[tuple[nn.Module, TextSite]]:
        """The modules that take a mask, and where they have the text."""
        if self.how.blocks is None:
            return [(block, site) for _, block, site in find_blocks(self.model)]
        site = TextSite(self.how.blocks)
        return [(module, site) for name, module in self.model.named_modules() if re.search(self.how.blocks, name)]

    def seen(
        self, arguments: Mapping[str, Any], given: torch.Tensor | None = None
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The texts of a call under the policy, by argument, and what is seen of them, (B, L) bool.

        Of a text that is not known, all is seen, or what the pipeline says.
        """
        known = self._recognised(arguments[self.family.text])
        texts = {name: self._under_policy(arguments, name, known) for name in self._names()}
        length = sum(text.shape[self._axis(name) + 1] for name, text in texts.items())
        first = texts[self.family.text]
        seen = torch.ones(len(known), length, dtype=torch.bool) if given is None else given[:, :length].bool().cpu()
        seen = seen.clone()
        for index, one in enumerate(known):
            if one is not None:
                rows = one.seen[:length]
                seen[index] = torch.from_numpy(np.pad(rows, (0, length - len(rows))))
        return texts, seen.to(first.device)

    def _names(self) -> tuple[str, ...]:
        return (self.family.text, *self.family.more_text)

    def _axis(self, name: str) -> int:
        """Which axis of an argument is the batch."""
        return 1 if name in self.family.layered else 0

    def _under_policy(self, arguments: Mapping[str, Any], name: str, known: list[PolicyText | None]) -> Any:
        """An argument with the text that the policy wants."""
        part, value = self._names().index(name), arguments[name]
        if all(one is None or one.given[part] is one.parts[part] for one in known):
            return value
        items = value.movedim(0, 2).unbind(0) if self._axis(name) else list(value)  # (rows, ...) each
        texts = [_with_rows(item, one, part) for item, one in zip(items, known, strict=True)]
        if isinstance(value, list):
            return texts
        return torch.stack(texts).movedim(2, 0) if self._axis(name) else torch.stack(texts)

    def set_mask(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Root pre-hook: another text and mask in the place of the pipeline's."""
        arguments = call_arguments(model, args, kwargs)
        given = arguments.get(self.how.argument or "")
        texts, seen = self.seen(arguments, given)
        if self.how.over_image and isinstance(given, torch.Tensor):
            # The pipeline gives ones and zeros as floats, which are added, not masked.
            seen = torch.cat([seen, given[:, seen.shape[1] :].bool()], dim=1)
        elif isinstance(given, torch.Tensor):
            seen = seen.to(given.dtype)
        return (), {**arguments, **texts, self.how.argument: seen}

    def before_call(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Root pre-hook of a denoiser that adds the padding itself: other text, and a note of its rows."""
        arguments = call_arguments(model, args, kwargs)
        self._texts = self._recognised(arguments[self.family.text])
        arguments |= {name: self._under_policy(arguments, name, self._texts) for name in self._names()}
        self._call = read_call(model, (), arguments)
        return (), arguments

    def before_block(self, site: TextSite, block: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Pre-hook of a block: a mask that hides rows of its text."""
        assert self._call is not None and self.how.block_argument is not None
        _, value = text_argument(site, block, args, kwargs)
        arguments = call_arguments(block, args, kwargs)
        given = arguments.get(self.how.block_argument)
        seen = value.new_ones(value.shape[:2], dtype=torch.bool) if given is None else given.clone()
        start, _ = text_span(site, self._call)
        for index, known in enumerate(self._texts):
            if known is not None:
                rows = torch.from_numpy(known.seen).to(seen.device)
                seen[index, start : start + len(rows)] &= rows
        return (), {**arguments, self.how.block_argument: given if given is None and seen.all() else seen}

    def replace_forward(self, handle: Handle) -> None:
        """Let the denoiser leave rows out. Other wrappers of its forward stay, inside or outside of ours."""
        before = vars(self.model).get("forward")
        self.model.forward = ours = partial(self.forward, self.model, self.model.forward, handle)
        handle.on_remove(partial(_put_back, self.model, ours, before))

    def forward(self, model: nn.Module, inner: Callable[..., Any], handle: Handle, *args: Any, **kwargs: Any) -> Any:
        """What replaces the denoiser's forward."""
        if not handle.active:
            return inner(*args, **kwargs)
        arguments = call_arguments(model, args, kwargs)
        texts, seen = self.seen(arguments)
        arguments |= texts
        return inner(**arguments) if seen.all() else self._in_groups(inner, arguments, seen)

    def _in_groups(self, forward: Any, arguments: Mapping[str, Any], seen: torch.Tensor) -> Any:
        """Call a denoiser for the items that see the same rows, without the others."""
        output = None
        for mask in torch.unique(seen, dim=0):
            items = (seen == mask).all(1).nonzero()[:, 0]
            part = {
                name: v if name.endswith("ids") else _select_items(items, v, len(seen)) for name, v in arguments.items()
            }
            part |= self._without(arguments, items, mask)
            result = forward(**{**part, "return_dict": False})
            result = result[0] if isinstance(result, tuple) else result
            output = result.new_zeros(len(seen), *result.shape[1:]) if output is None else output
            output[items] = result
        if arguments.get("return_dict", True):
            from diffusers.models.modeling_outputs import Transformer2DModelOutput

            return Transformer2DModelOutput(sample=output)
        return (output,)

    def _without(self, arguments: Mapping[str, Any], items: torch.Tensor, seen: torch.Tensor) -> dict[str, Any]:
        """The texts of some items without the rows that they do not see, and what there is one of for each row."""
        part, start = {}, 0
        for name in self._names():
            axis = self._axis(name)
            text = arguments[name].index_select(axis, items)
            length = text.shape[axis + 1]
            part[name] = text.index_select(axis + 1, seen[start : start + length].nonzero()[:, 0])
            start += length
        for name in PER_ROW:
            if (value := arguments.get(name)) is not None:
                part[name] = value[seen] if value.ndim == 1 else value[..., seen, :]
        return part

    def _recognised(self, texts: Any) -> list[PolicyText | None]:
        """Which prompt each text is, and a note of it for the report."""
        if self.known is None:
            self.outside.warn()
            return [None] * len(texts)
        found = [recognise(text, self.known) for text in texts]
        self.calls += 1
        for known in found:
            if known is not None:
                self._met.add(id(known))
                self.items += 1
                self.hidden += int((~known.seen).sum())
                self.replaced += _changed(known)
        return found


def _select_items(items: torch.Tensor, value: Any, batch: int) -> Any:
    """Select some items of a batch from an argument: a tensor with one entry per item, or a dict or list of these."""
    if isinstance(value, torch.Tensor):
        return value[items.to(value.device)] if value.ndim and len(value) == batch else value
    if isinstance(value, Mapping):
        return {name: _select_items(items, one, batch) for name, one in value.items()}
    return [_select_items(items, one, batch) for one in value] if isinstance(value, list) else value


def _changed(known: PolicyText) -> int:
    """How many rows the denoiser is given that are not the prompt's own."""
    number = 0
    for own, given in zip(known.parts, known.given, strict=True):
        same = min(len(own), len(given))
        number += int((own[:same] != given[:same]).flatten(1).any(1).sum()) + len(given) - same
    return number


def _with_rows(text: torch.Tensor, known: PolicyText | None, part: int) -> torch.Tensor:
    """The text that a policy wants in the place of a part of a known one; rows behind it, of a batch, stay."""
    if known is None or known.given[part] is known.parts[part]:
        return text
    return torch.cat([known.given[part].to(text), text[len(known.given[part]) :]])


def _put_back(model: nn.Module, ours: Callable[..., Any], before: Callable[..., Any] | None) -> None:
    """Take our forward off, unless another one has wrapped it since, and goes on to call it."""
    if vars(model).get("forward") is not ours:
        return
    del model.forward
    if before is not None:
        model.forward = before
