"""What a search has spent, counted alike for every method."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TypedDict, cast


class ComputeRow(TypedDict):
    """A `Compute` as JSON, with what methods are compared by."""

    denoiser: int
    backward: int
    recomputed: int
    vae: int
    vae_backward: int
    detector: int
    looks: int
    seconds: float
    passes: int


@dataclass
class Compute:
    """Passes and seconds. A pass is one row of a batch, so guidance makes two per step.

    Args:
        denoiser: forward through the denoiser.
        backward: back through the denoiser.
        recomputed: forward once more for the backward pass (gradient checkpointing).
        vae: images decoded.
        vae_backward: images taken back through the VAE.
        detector: images looked at by the counter, once per class.
        looks: what early looks took by the clock, decoding and detection, in denoiser passes.
        seconds: of work.
    """

    denoiser: int = 0
    backward: int = 0
    recomputed: int = 0
    vae: int = 0
    vae_backward: int = 0
    detector: int = 0
    looks: int = 0
    seconds: float = 0.0

    @property
    def passes(self) -> int:
        """Denoiser passes, one backward being worth two forward: what methods are compared by."""
        return self.denoiser + self.recomputed + 2 * self.backward + self.looks

    def as_dict(self) -> ComputeRow:
        """Return what JSON holds, `passes` included."""
        return cast("ComputeRow", {**asdict(self), "passes": self.passes})
