"""How long images take on this machine, measured by the jobs that are done, to estimate the time of the next."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from t2i_tools.errors import InputError
from t2i_tools.files import replacing

if TYPE_CHECKING:
    from t2i_tools.images.generate import Request

    from .model_sizes import ModelSize

WEIGHT = 0.5  # of the latest job in the mean, for the load of a machine changes


class Pace:
    """Seconds per denoising step of an image of the model's own size, by kind of job and model; kept in a file."""

    def __init__(self, path: Path):
        self._path = path
        try:
            self._known: dict[str, float] = {k: float(v) for k, v in json.loads(path.read_text()).items()}
        except (OSError, ValueError, AttributeError, TypeError):
            self._known = {}

    def note(self, kind: str, model: str, steps: float, seconds: float) -> None:
        """Take a job that is done into the mean. steps: as `work_of` counts them."""
        if steps <= 0:
            return
        new, name = seconds / steps, f"{kind} {model}"
        self._known[name] = WEIGHT * new + (1 - WEIGHT) * self._known.get(name, new)
        with suppress(InputError), replacing(self._path) as part:  # the job is done, whatever the disk says to this
            part.write_text(json.dumps(self._known, indent=1))

    def seconds(self, kind: str, model: str, steps: float) -> float | None:
        """What so much work is expected to take, by jobs of this kind, else of any; None where none is done yet."""
        known = self._known.get(f"{kind} {model}")
        if known is None:
            known = next((value for name, value in self._known.items() if name.split(" ", 1)[1] == model), None)
        return None if known is None else known * steps


def work_of(requests: "Sequence[Request]", image_costs: Sequence[float], steps: int, size: "ModelSize | None") -> float:
    """Denoising steps in all, those of larger images worth as many as they have more pixels.

    image_costs: of each request, in plain images' worth. steps: the model's default.
    """
    native = size.native[0] * size.native[1] if size else None
    total = 0.0
    for one, cost in zip(requests, image_costs, strict=True):
        share = one.size[0] * one.size[1] / native if one.size and native else 1.0
        total += (one.steps or steps) * share * cost
    return total
