"""Gives a denoiser the text of a padding policy: hides rows by its mask where it reads one, else leaves them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from t2i_tools.handle import Handle
from t2i_tools.models.calls import DenoiserCall, call_arguments, read_call
from t2i_tools.models.families import TextMasking, TextSite, find_family
from t2i_tools.padding.encoding import recognise
from t2i_tools.padding.hooks import find_blocks, text_argument, text_span
from t2i_tools.padding.policies import PolicyText

# Arguments of a denoiser that have one entry per item.
BATCHED: tuple[str, ...] = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "guidance")
BATCHED += ("original_size", "target_size", "crop_coords")


class RowMasking:
    """Gives the calls of a denoiser other text, and hides rows of it. known: the prompts of the pipeline's call."""

    def __init__(self, model: nn.Module, how: TextMasking, policy: str) -> None:
        self.model, self.how, self.policy = model, how, policy
        self.family = find_family(model)
        self.known: list[PolicyText] = []
        self.calls = self.items = self.hidden = self.replaced = 0
        self._call: DenoiserCall | None = None
        self._texts: list[PolicyText | None] = []

    def attach(self, handle: Handle) -> None:
        """Act on the denoiser until the handle ends."""
        if self.how.block_argument is not None:
            handle.on_remove(self.model.register_forward_pre_hook(self.before_call, with_kwargs=True).remove)
            for _, block, site in find_blocks(self.model):
                hook = partial(self.before_block, site)
                handle.on_remove(block.register_forward_pre_hook(hook, with_kwargs=True).remove)
        elif self.how.argument is not None:
            handle.on_remove(self.model.register_forward_pre_hook(self.set_mask, with_kwargs=True).remove)
        else:
            self.replace_forward(handle)

    def report(self) -> Iterator[dict[str, Any]]:
        """What was done: texts are those of each item in each call of the denoiser."""
        yield {
            "policy": self.policy,
            "calls": self.calls,
            "texts": self.items,
            "rows replaced": self.replaced,
            "rows hidden": self.hidden,
        }

    def seen(self, text: torch.Tensor, given: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch of texts under the policy, (B, L, d), and what is seen of it, (B, L) bool.

        Of a text that is not known, all is seen, or what the pipeline says.
        """
        seen = torch.ones(text.shape[:2], dtype=torch.bool) if given is None else given[:, : text.shape[1]].bool().cpu()
        seen, texts = seen.clone(), []
        for index, (item, known) in enumerate(zip(text, self._recognised(text), strict=True)):
            if known is not None:
                rows = known.seen[: text.shape[1]]
                seen[index] = torch.from_numpy(np.pad(rows, (0, text.shape[1] - len(rows))))
                item = _with_rows(item, known)
            texts.append(item)
        return torch.stack(texts), seen.to(text.device)

    def set_mask(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Root pre-hook: another text and mask in the place of the pipeline's."""
        arguments = call_arguments(model, args, kwargs)
        given = arguments.get(self.how.argument or "")
        text, seen = self.seen(arguments["encoder_hidden_states"], given)
        if self.how.over_image and isinstance(given, torch.Tensor):
            # The pipeline gives ones and zeros as floats, which are added, not masked.
            seen = torch.cat([seen, given[:, seen.shape[1] :].bool()], dim=1)
        elif isinstance(given, torch.Tensor):
            seen = seen.to(given.dtype)
        return (), {**arguments, "encoder_hidden_states": text, self.how.argument: seen}

    def before_call(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Root pre-hook of a denoiser that adds the padding itself: other text, and a note of its rows."""
        arguments = call_arguments(model, args, kwargs)
        name = self.family.text
        self._texts = self._recognised(arguments[name])
        texts = [_with_rows(text, known) for text, known in zip(arguments[name], self._texts, strict=True)]
        arguments[name] = texts
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
        text, seen = self.seen(arguments["encoder_hidden_states"])
        arguments["encoder_hidden_states"] = text
        return inner(**arguments) if seen.all() else _in_groups(inner, arguments, seen)

    def _recognised(self, texts: Any) -> list[PolicyText | None]:
        """Which prompt each text is, and a note of it for the report."""
        found = [recognise(text, self.known) for text in texts]
        self.calls += 1
        for known in found:
            if known is not None:
                self.items += 1
                self.hidden += int((~known.seen).sum())
                self.replaced += _changed(known)
        return found


def _changed(known: PolicyText) -> int:
    """How many rows the denoiser is given that are not the prompt's own."""
    same = min(len(known.text), len(known.given))
    return int((known.text[:same] != known.given[:same]).any(1).sum()) + len(known.given) - same


def _with_rows(text: torch.Tensor, known: PolicyText | None) -> torch.Tensor:
    """The text that a policy wants in the place of a known one; rows behind it, of a batch, stay."""
    if known is None or known.given is known.text:
        return text
    return torch.cat([known.given.to(text), text[len(known.given) :]])


def _put_back(model: nn.Module, ours: Callable[..., Any], before: Callable[..., Any] | None) -> None:
    """Take our forward off, unless another one has wrapped it since, and goes on to call it."""
    if vars(model).get("forward") is not ours:
        return
    del model.forward
    if before is not None:
        model.forward = before


def _in_groups(forward: Any, arguments: Mapping[str, Any], seen: torch.Tensor) -> Any:
    """Call a denoiser for the items that see the same rows, without the others."""
    output = None
    for mask in torch.unique(seen, dim=0):
        items = (seen == mask).all(1).nonzero()[:, 0]
        part = {name: v[items] if name in BATCHED and v is not None else v for name, v in arguments.items()}
        part["encoder_hidden_states"] = part["encoder_hidden_states"][:, mask]
        if part.get("txt_ids") is not None:
            part["txt_ids"] = part["txt_ids"][..., mask, :]  # of some families one for each item
        result = forward(**{**part, "return_dict": False})[0]
        output = result.new_zeros(len(seen), *result.shape[1:]) if output is None else output
        output[items] = result
    if arguments.get("return_dict", True):
        from diffusers.models.modeling_outputs import Transformer2DModelOutput

        return Transformer2DModelOutput(sample=output)
    return (output,)
