"""What a search tells of each step, and what it hands over at its end."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from PIL import Image

from t2i_tools.counting.compute import Compute
from t2i_tools.counting.strip import draw_strip
from t2i_tools.counting.token import CountToken


@dataclass(frozen=True)
class Step:
    """One trial: a picture for each of its seeds.

    found: per picture, class -> objects that the counter saw. potential, scale: per picture, of the first class; None
    without a gradient, as are the losses and grad_norm. error: mean of |found - wanted|. exact: all pictures are.
    best: whether it is the best so far. seconds: of this step; passes: denoiser passes spent so far.
    """

    index: int
    seeds: tuple[int, ...]
    images: list[Image.Image] = field(repr=False)
    found: list[dict[str, int]]
    error: float
    exact: bool
    best: bool
    potential: list[float] | None
    scale: list[float] | None
    count_loss: float | None
    clip_loss: float | None
    grad_norm: float | None
    seconds: float
    passes: int

    @property
    def image(self) -> Image.Image:
        """The first picture."""
        return self.images[0]

    @property
    def counts(self) -> list[int]:
        """Per picture, the objects of the first class."""
        return [next(iter(found.values())) for found in self.found]

    @property
    def count(self) -> int:
        """The objects of the first class in the first picture."""
        return self.counts[0]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: everything but the pictures."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "images"}
        return {**values, "seeds": list(self.seeds)}


@dataclass(frozen=True)
class Result:
    """The pictures of a search's best step, and what it takes to make them again.

    found, error, exact: see `Step`. tokens: those learned, empty for methods without one. latents: the learned noise,
    (B, ...), None where the seeds' own made the pictures. history: one dict a step. frames: the first picture of every
    step, small. best: the index of the best step. stopped: why: "exact", "budget", "patience", "interrupted" or "done".
    picture_passes: denoiser passes of one plain picture, the unit of the budget.
    """

    images: list[Image.Image] = field(repr=False)
    seeds: tuple[int, ...]
    prompt: str
    found: list[dict[str, int]]
    error: float
    exact: bool
    tokens: list[CountToken] = field(repr=False)
    latents: torch.Tensor | None = field(repr=False)
    history: list[dict[str, Any]] = field(repr=False)
    frames: list[Image.Image] = field(repr=False)
    best: int
    stopped: str
    compute: Compute
    picture_passes: int

    @property
    def token(self) -> CountToken | None:
        """The first token."""
        return self.tokens[0] if self.tokens else None

    @property
    def counts(self) -> list[int]:
        """Per picture, the objects of the first class."""
        return [next(iter(found.values())) for found in self.found]

    def strip(self) -> Image.Image:
        """The steps in one picture, each with what the counter found; the best is framed."""
        labels = [", ".join(map(str, row["found"][0].values())) for row in self.history]
        return draw_strip(self.frames, labels, self.best)
