"""Rows of text, exchanged at the blocks of a denoiser: recorded in one run of a pipeline, put into another."""

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
from t2i_tools.padding.encoder import directions
from t2i_tools.padding.sites import Call, Site, find_sites, read_call, text_argument, text_span


@dataclass
class Run:
    """The text of one run of a pipeline: of each call of the denoiser as it came in, and by block."""

    given: list[list[torch.Tensor]] = field(default_factory=list)
    blocks: list[dict[str, torch.Tensor]] = field(default_factory=list)


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


class Exchange:
    """Hooks on a denoiser and its blocks, which do nothing unless it is told to `record` or to `follow` a plan."""

    def __init__(self, model: nn.Module, layers: str | None = None, steps: Container[int] | None = None) -> None:
        self.model = model
        self.steps = steps
        self.stations = [Station(name, module, site) for name, module, site in find_sites(model)]
        self.chosen = _matching(self.stations, layers)
        self.run: Run | None = None
        self.plan: Plan | None = None
        self._calls = self._step = 0
        self._time: float | None = None

    def attach(self, handle: Handle) -> None:
        """Set the hooks, to be taken off with the handle."""
        handle.on_remove(self.rest)
        handle.on_remove(self.model.register_forward_pre_hook(self.before_call, with_kwargs=True).remove)
        handle.on_remove(self.model.register_forward_hook(self.after_call).remove)
        for station in self.stations:
            hook = station.module.register_forward_pre_hook(station.before_block, with_kwargs=True)
            handle.on_remove(hook.remove)

    def record(self, generate: Callable[[], Any]) -> tuple[Any, Run]:
        """What `generate` returns, and the text of its run."""
        self.rest()
        self.run = run = Run()
        try:
            return generate(), run
        finally:
            self.rest()

    def follow(self, plan: Plan, generate: Callable[[], Any]) -> Any:
        """What `generate` returns when the rows of its text are exchanged."""
        self.rest()
        self.plan = plan
        try:
            return generate()
        finally:
            self.rest()

    def rest(self) -> None:
        """Do nothing from now on."""
        self.run = self.plan = self._time = None
        self._calls = self._step = 0
        for station in self.stations:
            station.rest()

    @torch.compiler.disable  # traced, it would compile anew for every step
    def before_call(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Root pre-hook: tell each block what to do in this call."""
        if self.run is None and self.plan is None:
            return
        call = read_call(model, args, kwargs)
        if self._time is not None and call.time != self._time:
            self._step += 1
        self._time = call.time
        for station in self.stations:
            station.span = text_span(station.site, call)
            station.recording = self.run is not None
        if self.run is not None:
            self.run.given.append([text.detach().clone() for text in call.text])
        elif self.steps is None or self._step in self.steps:
            self._prepare(call)
        self._calls += 1

    @torch.compiler.disable
    def after_call(self, model: nn.Module, args: tuple, output: Any) -> None:
        """Root hook: gather what the blocks have seen, and let go of what they were given."""
        if self.run is not None:
            earlier = self.run.blocks[-1] if self.run.blocks else {}
            seen: dict[str, torch.Tensor] = {}
            for station in self.stations:
                if station.seen is not None:
                    alike = (earlier.get(station.name), next(reversed(seen.values()), None))
                    seen[station.name] = _held_once(station.seen.cpu(), alike)
            self.run.blocks.append(seen)
        for station in self.stations:
            station.rest()

    def _prepare(self, call: Call) -> None:
        plan, index = self.plan, self._calls
        if index >= len(plan.clean.given):
            raise UnsupportedModelError("the denoiser is called more often than in the clean run: nothing to put in")
        guided = conditional(plan.full.given[index], plan.clean.given[index], len(plan.own))
        if not any(guided):
            return
        for station in self.chosen:
            if station.name in plan.clean.blocks[index]:
                self._instruct(station, plan, guided, call.text[0].device)

    def _instruct(self, station: Station, plan: Plan, guided: list[bool], device: torch.device) -> None:
        runs = {"full": plan.full, "clean": plan.clean, "lender": plan.lender}
        text = {name: run.blocks[self._calls][station.name].to(device) for name, run in runs.items() if run}
        length = station.span[1] - station.span[0]
        if text["clean"].shape[1] != length:
            raise UnsupportedModelError(
                f"the clean prompt has {text['clean'].shape[1]} rows of text in {station.name}, "
                f"and the prompt {length}: take off plugins that change how prompts are read"
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
        station.rows, station.leave = rows, mask(plan.leave, fill=True)
        station.calls += 1
        station.exchanged = int((~(plan.own | plan.leave)).sum(axis=1).max())

    def report(self) -> list[dict[str, Any]]:
        """layer, calls in which rows of its text were exchanged, and how many; warns when none were."""
        if not any(station.calls for station in self.chosen):
            warnings.warn("the padding intervention did nothing: the pipeline has not been called since", stacklevel=3)
        return [{"layer": one.name, "calls": one.calls, "rows": one.exchanged} for one in self.chosen]


class Station:
    """One block: sees its text, or is given other rows of it."""

    def __init__(self, name: str, module: nn.Module, site: Site) -> None:
        self.name, self.module, self.site = name, module, site
        self.calls = self.exchanged = 0
        self.rest()

    def rest(self) -> None:
        """Neither see nor exchange."""
        self.recording = False
        self.span = (0, 0)
        self.seen: torch.Tensor | None = None
        self.rows: torch.Tensor | None = None
        self.leave: torch.Tensor | None = None

    def before_block(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        """Pre-hook of the block."""
        if not self.recording and self.rows is None:
            return None
        key, value = text_argument(self.site, module, args, kwargs)
        value, *pictures = value if isinstance(value, tuple) else (value,)  # those of an IP-Adapter
        start, stop = self.span
        text = value[:, start:stop]
        if self.recording:
            self.seen = text.detach().clone()
            return None
        text = torch.where(self.leave, text, self.rows)
        value = torch.cat([value[:, :start], text, value[:, stop:]], dim=1)
        value = (value, *pictures) if pictures else value
        if isinstance(key, str):
            return args, {**kwargs, key: value}
        return (*args[:key], value, *args[key + 1 :]), kwargs


def _matching(stations: list[Station], pattern: str | None) -> list[Station]:
    """Those whose names match. Raises InputError."""
    try:
        chosen = [station for station in stations if re.search(pattern or "", station.name)]
    except re.error as error:
        raise InputError(f"layers={pattern!r} is no regular expression: {error}") from error
    if not chosen:
        raise InputError(f"layers={pattern!r} matches none, for instance not {stations[0].name}")
    return chosen


def _held_once(text: torch.Tensor, alike: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """The text, or what is held already and equals it: cross-attention has the same in every block and step."""
    return next((held for held in alike if held is not None and torch.equal(held, text)), text)


def conditional(full: list[torch.Tensor], clean: list[torch.Tensor], images: int) -> list[bool]:
    """Which parts of a batch, each of as many items as there are images, follow the prompt.

    What guidance compares with is the same text in both runs, and is left alone.
    """
    differs = [a.shape != b.shape or not torch.equal(a, b) for a, b in zip(full, clean, strict=True)]
    if len(differs) % images:
        raise UnsupportedModelError(f"a batch of {len(differs)} texts does not go into {images} images")
    return [any(differs[start : start + images]) for start in range(0, len(differs), images)]


def rows_of(rows: np.ndarray, guided: list[bool], length: int, fill: bool = False) -> torch.Tensor:
    """(items, L, 1) bool: the images' rows in the parts of a batch that follow the prompt, elsewhere `fill`."""
    images = rows.shape[0]
    mask = np.full((len(guided), images, length), fill)
    width = min(length, rows.shape[1])
    mask[guided, :, :width] = rows[:, :width]
    return torch.from_numpy(mask.reshape(len(guided) * images, length, 1))
