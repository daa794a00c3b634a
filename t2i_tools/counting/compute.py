"""What a search has spent, counted alike for every method."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Compute:
    """denoiser, backward: rows of a batch that went through the denoiser forward and backward, guidance's included;
    recomputed: forward once more for the backward pass (gradient checkpointing). vae, vae_backward, detector: pictures.
    seconds: of work.
    """

    denoiser: int = 0
    backward: int = 0
    recomputed: int = 0
    vae: int = 0
    vae_backward: int = 0
    detector: int = 0
    seconds: float = 0.0

    @property
    def passes(self) -> int:
        """Denoiser passes, one backward being worth two forward: what methods are compared by."""
        return self.denoiser + self.recomputed + 2 * self.backward

    def as_dict(self) -> dict[str, Any]:
        """For JSON, `passes` included."""
        return {**asdict(self), "passes": self.passes}
