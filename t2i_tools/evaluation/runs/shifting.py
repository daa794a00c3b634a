"""Timesteps for another number of pixels: the same signal takes sqrt(m / n) as much noise to be hidden in m pixels as
in n (Hoogeboom et al. 2023, 2301.11093, eq. 4; Esser et al. 2024, 2403.03206, eq. 23)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from t2i_tools.errors import UnsupportedModelError
from t2i_tools.images.signature import takes

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def shifted_timesteps(scheduler: Any, steps: int, shift: float) -> list[int]:
    """The scheduler's own timesteps but the first, moved to where noise / signal is `shift` times as high.

    Raises UnsupportedModelError for a scheduler without variance-preserving noise, such as flow matching.
    """
    if not hasattr(scheduler, "alphas_cumprod"):
        raise UnsupportedModelError(f"{type(scheduler).__name__} has no timesteps to shift")
    scheduler.set_timesteps(steps)
    noise = np.sqrt(1 / scheduler.alphas_cumprod.double().numpy() - 1)  # rising with the timestep
    wanted = noise[scheduler.timesteps.long().numpy()] * shift
    nearest = np.abs(np.log(noise)[None] - np.log(wanted)[:, None]).argmin(1)
    nearest[0] = scheduler.timesteps[0]  # an image begins as pure noise, whatever its size
    return np.unique(nearest)[::-1].tolist()


@contextmanager
def first_order_solver(pipe: DiffusionPipeline) -> Iterator[None]:
    """While it lasts, the pipeline's scheduler is DDIM in a form that takes any timesteps: DPM-Solver++ of first order.

    Raises UnsupportedModelError for a pipeline that takes none.
    """
    from diffusers import DPMSolverMultistepScheduler

    own = pipe.scheduler
    if not takes(pipe, "timesteps"):
        raise UnsupportedModelError(f"{type(pipe).__name__} takes no timesteps")
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(
        own.config, algorithm_type="dpmsolver++", solver_order=1, final_sigmas_type="zero", use_flow_sigmas=False
    )
    try:
        yield
    finally:
        pipe.scheduler = own
