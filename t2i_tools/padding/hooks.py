"""Rows of text, exchanged before the blocks of a denoiser: recorded in one run of a pipeline, put into another."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.handle import Handle
from t2i_tools.models.calls import DenoiserCall, StepClock, parameters, read_call
from t2i_tools.models.families import TextSite, find_family
from t2i_tools.padding.encoding import is_same_text


@dataclass
class Run:
    """The text of one run of a pipeline: of each call of the denoiser as it came in, and by block; held on the CPU."""

    given: list[list[torch.Tensor]] = field(default_factory=list)
    blocks: list[dict[str, torch.Tensor]] = field(default_factory=list)
    _held: list[torch.Tensor] = field(default_factory=list)  # each text once

    def add_given(self, texts: Sequence[torch.Tensor]) -> None:
        """Note the texts of one call, each of which is held once, in however many steps it comes."""
        self.given.append(call := [])
        for text in texts:
            new = text.detach().to("cpu", copy=True)
            call.append(held := _held_once(new, self._held))
            if held is new:
                self._held.append(new)


@dataclass(frozen=True)
class Plan:
    """What to put where: (images, L) bool each, of the rows of the text; an image is one of the batch.

    own: rows that come from the run `full`, all others from `clean`, but for `lent` ones, which come from `lender`, and
    those of `noise`, which takes the norm of the full run's. leave: rows that are not touched.
    """

    full: Run
    clean: Run
    own: np.ndarray
    leave: np.ndarray
    lender: Run | None = None
    lent: np.ndarray | None = None
    noise: np.ndarray | None = None


def find_blocks(model: nn.Module) -> list[tuple[str, nn.Module, TextSite]]:
    """Name, block and site of each attention block, in the order of the model. Raises UnsupportedModelError."""
    return [
        (name, module, site)
        for name, module in model.named_modules()
        for site in text_sites(model)
        if re.search(site.blocks, name)
    ]


def text_sites(model: nn.Module) -> tuple[TextSite, ...]:
    """Where the blocks of a denoiser have the text. Raises UnsupportedModelError."""
    family = find_family(model)
    if not family.sites:
        why = family.refused.get("padding", "it is not known where its blocks have the text")
        raise UnsupportedModelError(f"{type(model).__name__}: {why}")
    return family.sites


def text_span(site: TextSite, call: DenoiserCall) -> tuple[int, int]:
    """Start and stop of the text in the site's argument."""
    start = call.image_tokens if site.joint and site.text_last else site.extra
    return start, start + (call.padded(call.seen_text) if site.masked_out else call.text_length)


def text_argument(site: TextSite, module: nn.Module, args: tuple, kwargs: dict) -> tuple[str | int, torch.Tensor]:
    """The key or position of the argument that holds the text, and its value."""
    if site.argument in kwargs:
        return site.argument, kwargs[site.argument]
    index = parameters(type(module).forward).index(site.argument)
    return index, args[index]


class ForeignCallWarning:
    """Warns once that the denoiser was called by another pipeline than the one whose calls a plugin follows."""

    def __init__(self, plugin: str) -> None:
        self.plugin, self.warned = plugin, False

    def warn(self) -> None:
        """Warn, unless it was done before."""
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"{self.plugin} does not act in this call: the denoiser was called directly or by another pipeline. "
                "After from_pipe, apply it to the new pipeline; with two_pass it acts in the first pass only",
                stacklevel=2,
            )


class RowExchange:
    """Hooks on a denoiser and its blocks, which do nothing outside of `record` and `replay`."""

    def __init__(self, model: nn.Module, layers: str | None = None, steps: Container[int] | None = None) -> None:
        self.model = model
        self.steps = steps
        self.blocks = [BlockHook(name, module, site) for name, module, site in find_blocks(model)]
        self.chosen = _matching(self.blocks, layers)
        self.run: Run | None = None
        self.plan: Plan | None = None
        self.clock = StepClock()
        self.outside = ForeignCallWarning("the padding intervention")
        self._calls = 0

    def attach(self, handle: Handle) -> None:
        """Set the hooks, to be taken off with the handle."""
        handle.on_remove(self.reset)
        handle.on_remove(self.model.register_forward_pre_hook(self.before_call, with_kwargs=True).remove)
        handle.on_remove(self.model.register_forward_hook(self.after_call).remove)
        for block in self.blocks:
            hook = block.module.register_forward_pre_hook(block.before_block, with_kwargs=True)
            handle.on_remove(hook.remove)

    def record(self, generate: Callable[[], Any]) -> tuple[Any, Run]:
        """What `generate` returns, and the text of its run."""
        self.reset()
        self.run = run = Run()
        try:
            return generate(), run
        finally:
            self.reset()

    def replay(self, plan: Plan, generate: Callable[[], Any]) -> Any:
        """What `generate` returns when the rows of its text are exchanged."""
        self.reset()
        self.plan = plan
        try:
            return generate()
        finally:
            self.reset()

    def reset(self) -> None:
        """Do nothing from now on."""
        self.run = self.plan = None
        self.clock.reset()
        self._calls = 0
        for hook in self.blocks:
            hook.reset()

    @torch.compiler.disable  # traced, it would compile anew for every step
    def before_call(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Root pre-hook: give each block its task in this call."""
        if self.run is None and self.plan is None:
            self.outside.warn()
            return
        call = read_call(model, args, kwargs)
        step = self.clock.tick(call.time)
        if self.steps is not None and call.cached:
            raise UnsupportedModelError(
                "this pipeline reads the text in its first step only and caches its keys: pass use_kv_cache=False, "
                "or leave out steps"
            )
        for hook in self.blocks:
            hook.span = text_span(hook.site, call)
            hook.places = None if hook.site.places is None else hook.site.places(call.model, call.arguments)
            hook.recording = self.run is not None and not call.cached
        if self.run is not None:
            self.run.add_given(call.texts)
        elif self.steps is None or step in self.steps:
            self._prepare(call)
        self._calls += 1

    @torch.compiler.disable
    def after_call(self, model: nn.Module, args: tuple, output: Any) -> None:
        """Root hook: gather what the blocks have seen, and let go of what they were given."""
        if self.run is not None:
            earlier = self.run.blocks[-1] if self.run.blocks else {}
            seen: dict[str, torch.Tensor] = {}
            for hook in self.blocks:
                if hook.seen is not None:
                    alike = (earlier.get(hook.name), next(reversed(seen.values()), None))
                    seen[hook.name] = _held_once(hook.seen.cpu(), alike)
            self.run.blocks.append(seen)
        for hook in self.blocks:
            hook.reset()

    def _prepare(self, call: DenoiserCall) -> None:
        plan, index = self.plan, self._calls
        assert plan is not None  # a call is prepared within an exchange only
        if index >= len(plan.clean.given):
            raise UnsupportedModelError(
                "the denoiser is called more often with the prompt than with the clean prompt, so that their rows "
                "cannot be matched: remove a callback or setting that changes the number of steps"
            )
        guided = conditional(plan.full.given[index], plan.clean.given[index], len(plan.own))
        if not any(guided):
            return
        for hook in self.chosen:
            if hook.name in plan.clean.blocks[index]:
                self._instruct(hook, plan, guided, call.texts[0].device)

    def _instruct(self, hook: BlockHook, plan: Plan, guided: list[bool], device: torch.device) -> None:
        runs = {"full": plan.full, "clean": plan.clean, "lender": plan.lender}
        text = {name: run.blocks[self._calls][hook.name].to(device) for name, run in runs.items() if run}
        length = hook.span[1] - hook.span[0]
        if text["clean"].shape[1] != length:
            raise UnsupportedModelError(
                f"the clean prompt has {text['clean'].shape[1]} rows of text in {hook.name}, "
                f"and the prompt {length}: remove plugins that change how prompts are read"
            )

        def mask(rows: np.ndarray, fill: bool = False) -> torch.Tensor:
            return rows_of(rows, guided, length, fill).to(device)

        rows = torch.where(mask(plan.own), text["full"], text["clean"])
        if plan.lent is not None:
            lender = torch.cat([text["lender"], rows[:, text["lender"].shape[1] :]], dim=1)[:, :length]
            rows = torch.where(mask(plan.lent), lender, rows)
        if plan.noise is not None:
            noise = directions(length, rows.shape[2]).to(rows) * text["full"].norm(dim=-1, keepdim=True)
            rows = torch.where(mask(plan.noise), noise, rows)
        hook.rows, hook.leave = rows, mask(plan.leave, fill=True)
        hook.calls += 1
        hook.exchanged = int((~(plan.own | plan.leave)).sum(axis=1).max())

    def report(self) -> list[dict[str, Any]]:
        """layer, calls in which rows of its text were exchanged, and how many; warns when none were."""
        if not any(hook.calls for hook in self.chosen):
            warnings.warn(
                "the padding intervention did nothing: the pipeline has not been called since it was applied",
                stacklevel=3,
            )
        return [{"layer": one.name, "calls": one.calls, "rows": one.exchanged} for one in self.chosen]


class BlockHook:
    """One block: sees its text, or is given other rows of it."""

    def __init__(self, name: str, module: nn.Module, site: TextSite) -> None:
        self.name, self.module, self.site = name, module, site
        self.calls = self.exchanged = 0
        self.reset()

    def reset(self) -> None:
        """Neither see nor exchange."""
        self.recording = False
        self.span = (0, 0)
        self.places: torch.Tensor | None = None
        self.seen: torch.Tensor | None = None
        self.rows: torch.Tensor | None = None
        self.leave: torch.Tensor | None = None

    def before_block(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        """Pre-hook of the block."""
        if not self.recording and self.rows is None:
            return None
        key, value = text_argument(self.site, module, args, kwargs)
        images: list[Any]
        value, *images = value if isinstance(value, tuple) else (value,)  # those of an IP-Adapter
        start, stop = self.span
        value = value.transpose(0, 1) if self.site.rows_first else value  # (B, L, d)
        everywhere = value
        if self.places is not None:
            value = _gathered(everywhere, self.places)
        text = value[:, start:stop]
        if self.recording:
            self.seen = text.detach().clone()
            return None
        assert self.leave is not None and self.rows is not None  # set with the exchange
        text = torch.where(self.leave, text, self.rows)
        if self.places is not None:
            index = self.places[:, start:stop, None].expand_as(text)
            value = everywhere.scatter(1, index, text)
        else:
            value = torch.cat([value[:, :start], text, value[:, stop:]], dim=1)
        value = value.transpose(0, 1) if self.site.rows_first else value
        given: Any = (value, *images) if images else value
        if isinstance(key, str):
            return args, {**kwargs, key: given}
        return (*args[:key], given, *args[key + 1 :]), kwargs


def _gathered(value: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(B, L, d): the rows of (B, N, d) at (B, L)."""
    return value.gather(1, places[..., None].expand(-1, -1, value.shape[-1]))


def _matching(hooks: list[BlockHook], pattern: str | None) -> list[BlockHook]:
    """Those whose names match. Raises InputError."""
    try:
        chosen = [hook for hook in hooks if re.search(pattern or "", hook.name)]
    except re.error as error:
        raise InputError(f"layers={pattern!r} is not a regular expression: {error}") from error
    if not chosen:
        raise InputError(f"layers={pattern!r} matches none, for instance not {hooks[0].name}")
    return chosen


def _held_once(text: torch.Tensor, alike: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """The text, or what is held already and equals it: cross-attention has the same in every block and step."""
    return next((held for held in alike if held is not None and torch.equal(held, text)), text)


def conditional(full: list[torch.Tensor], clean: list[torch.Tensor], images: int) -> list[bool]:
    """Which parts of a batch, each of as many items as there are images, follow the prompt.

    What guidance compares with is the same text in both runs, up to rounding, and is left alone.
    """
    differs = [not is_same_text(a, b) for a, b in zip(full, clean, strict=True)]
    if len(differs) % images:
        raise UnsupportedModelError(
            f"a batch of {len(differs)} texts cannot be split among {images} images: remove plugins that change how "
            "prompts are read"
        )
    return [any(differs[start : start + images]) for start in range(0, len(differs), images)]


def rows_of(rows: np.ndarray, guided: list[bool], length: int, fill: bool = False) -> torch.Tensor:
    """(items, L, 1) bool: the images' rows in the parts of a batch that follow the prompt, elsewhere `fill`."""
    images = rows.shape[0]
    mask = np.full((len(guided), images, length), fill)
    width = min(length, rows.shape[1])
    mask[guided, :, :width] = rows[:, :width]
    return torch.from_numpy(mask.reshape(len(guided) * images, length, 1))


def directions(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    """(L, d) Gaussian rows of length 1: noise that takes on the norm of the row in whose place it comes."""
    noise = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return noise / noise.norm(dim=-1, keepdim=True)
