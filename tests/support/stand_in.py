"""What stands for a pipeline where a test calls the denoiser itself."""

from typing import Any

import torch


class StandIn:
    """A UNet, whose latents are its pixels, and the timesteps of a schedule; other parts by name."""

    def __init__(self, unet: Any, *timesteps: float, **parts: Any) -> None:
        self.unet, self.scheduler = unet, Timesteps(timesteps or (500.0, 100.0))
        vars(self).update(parts)


class Timesteps:
    """A scheduler, as far as it says which steps there are."""

    def __init__(self, values: tuple[float, ...]) -> None:
        self.timesteps = torch.tensor(values)
