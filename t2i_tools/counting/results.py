"""What a search yields at each step (`Step`), and what it returns at its end (`Result`)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, TypedDict, cast

import torch
from PIL import Image

from t2i_tools.counting.compute import Compute
from t2i_tools.counting.strip import draw_strip
from t2i_tools.counting.token import CountToken

if TYPE_CHECKING:
    from t2i_tools.metrics import ClipScorer


class StepRow(TypedDict):
    """A `Step` as JSON: everything but its images."""

    index: int
    seeds: list[int]
    counted: list[dict[str, int]]
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
    look: dict[str, int] | None
    ended: bool


@dataclass(frozen=True)
class Step:
    """One trial: an image per seed.

    Args:
        index: of the step, from 0.
        seeds: of the images.
        images: what was drawn.
        counted: per image, class -> objects that the counter saw.
        error: mean of |counted - wanted| over the images.
        exact: whether all images are.
        best: whether it is the best so far.
        potential: per image, of the first class; None without a gradient.
        scale: potential per object, per image; None without a gradient.
        count_loss: the count term; None without a gradient.
        clip_loss: the CLIP term; None without a gradient.
        grad_norm: length of the gradient; None where nothing was stepped.
        seconds: of this step.
        passes: denoiser passes spent so far, see `Compute.passes`.
        look: class -> objects that the counter saw at an early look; None without one.
        ended: whether the trial was ended there; its image is then the predicted one.
    """

    index: int
    seeds: tuple[int, ...]
    images: list[Image.Image] = field(repr=False)
    counted: list[dict[str, int]]
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
    look: dict[str, int] | None = None
    ended: bool = False

    @property
    def image(self) -> Image.Image:
        """The first image."""
        return self.images[0]

    @property
    def counts(self) -> list[int]:
        """Per image, the objects of the first class."""
        return [next(iter(counted.values())) for counted in self.counted]

    @property
    def count(self) -> int:
        """The objects of the first class in the first image."""
        return self.counts[0]

    def as_dict(self) -> StepRow:
        """Return what JSON holds: everything but the images."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "images"}
        return cast("StepRow", {**values, "seeds": list(self.seeds)})


@dataclass(frozen=True)
class Result:
    """The images of a search's best step, and what it takes to make them again.

    Args:
        images: one per seed.
        seeds: of the images.
        prompt: with the tokens' words.
        counted: per image, class -> objects that the counter saw.
        error: mean of |counted - wanted| over the images.
        exact: whether all images are.
        tokens: those learned, empty for methods without one.
        latents: the learned noise (B, ...); None where the seeds' own made the images.
        history: one row per step.
        frames: the first image of every step, small.
        best: index of the best step.
        stopped: "exact", "budget", "patience", "trials", "interrupted" or "done".
        compute: what the search has spent.
        image_passes: denoiser passes of one plain image, the unit of the budget.
        kept: share of the first plain image's objects that are still in place (see `kept_share`), the mean over the
            images; None where the first trial was not the plain image, or it has no objects.
        plain: the first plain images, one per seed; empty where the first trial was not the plain image.
    """

    images: list[Image.Image] = field(repr=False)
    seeds: tuple[int, ...]
    prompt: str
    counted: list[dict[str, int]]
    error: float
    exact: bool
    tokens: list[CountToken] = field(repr=False)
    latents: torch.Tensor | None = field(repr=False)
    history: list[StepRow] = field(repr=False)
    frames: list[Image.Image] = field(repr=False)
    best: int
    stopped: str
    compute: Compute
    image_passes: int
    kept: float | None = None
    plain: list[Image.Image] = field(default_factory=list, repr=False)

    @property
    def token(self) -> CountToken | None:
        """The first token."""
        return self.tokens[0] if self.tokens else None

    @property
    def counts(self) -> list[int]:
        """Per image, the objects of the first class."""
        return [next(iter(counted.values())) for counted in self.counted]

    def similarity(self, clip: ClipScorer) -> float | None:
        """Say how alike the images are to the plain ones: the cosine of their CLIP embeddings (CLIP-I).

        Args:
            clip: embeds images; for instance `load_bundled_clip()`.

        Returns:
            The mean over the images, in [-1, 1]; None where there is no plain image.
        """
        if not self.plain:
            return None
        return float((clip.embed_images(self.images) * clip.embed_images(self.plain)).sum(axis=1).mean())

    def strip(self) -> Image.Image:
        """The steps in one image, each with what the counter found; the best is framed."""
        labels = [", ".join(map(str, row["counted"][0].values())) for row in self.history]
        return draw_strip(self.frames, labels, self.best)
