"""Which steps have small maps, and how small: as small as they are at the native size.

After "Deep Shrink" (kohya-ss 2023): in the first steps, when it is decided how many objects are where, the deep blocks
of a UNet see a map of the size that they were trained at, and a large image is not filled with repetitions.
"""

import math
from collections.abc import Sequence

from t2i_tools.errors import InputError

LEVEL = 1  # which of the downsamplers, from 1
ROUNDING = 0.01  # of the schedule's span: a timestep further from all of its is another schedule's
SHARE = 0.5  # of the steps. Both were chosen on dev prompts of the bundled model.


def check_share(share: float) -> None:
    """Raise InputError unless it is a share of the steps."""
    if not 0 <= share <= 1:
        raise InputError(f"share {share:g} is out of range: use 0 (no step) to 1 (all steps)")


def check_level(level: int, downsamplers: int) -> None:
    """Raise InputError unless the denoiser has a downsampler of this number."""
    if level not in range(1, downsamplers + 1):
        raise InputError(f"level {level} is out of range: this UNet has the downsamplers 1 to {downsamplers}")


def distinct(timesteps: Sequence[float]) -> list[float]:
    """The timesteps of a schedule in their order; those that a solver of second order visits twice, once."""
    return list(dict.fromkeys(timesteps))


def small_steps(share: float, steps: int) -> int:
    """How many steps have small maps: those that begin within the first `share` of a schedule."""
    return math.ceil(share * steps - 1e-9)


def place(time: float, timesteps: Sequence[float]) -> int:
    """The place of a timestep, which may be rounded, among those of a schedule.

    By place and not by noise level, which schedulers write in different units (0 to 1000, 0 to 1, the logarithm of
    sigma). By timestep and not by counting calls: then the denoiser stays one function of latents and timestep, which
    every solver integrates as it does without the plugin, and img2img begins where its first timestep stands.

    Raises InputError for a timestep of another schedule.
    """
    nearest = min(range(len(timesteps)), key=lambda index: abs(timesteps[index] - time))
    if abs(timesteps[nearest] - time) > ROUNDING * max(map(abs, timesteps)):
        raise InputError(
            f"timestep {time:g} is none of the scheduler's of the pipeline that deep shrink was applied to: apply it "
            "to the pipeline that you call"
        )
    return nearest


def halved(side: int, times: int) -> int:
    """A side of a map after downsamplers, each of which rounds up."""
    return -(-side // 2**times)


def small_side(side: int, native: int, level: int, deeper: int) -> int:
    """Return the side of a deep map with the plugin on: about that at the native size, never above the plain one.

    Args:
        side: of the latents.
        native: of the latents in training.
        level: how many downsamplers the map has passed.
        deeper: how many follow. They and their upsamplers fit together for multiples of 2 ** deeper.
    """
    plain, unit = halved(side, level), 2**deeper
    if side <= native:
        return plain
    return min(plain, max(1, round(native / 2**level / unit)) * unit)
