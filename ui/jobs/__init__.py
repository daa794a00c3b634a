"""The kinds of jobs: what each takes and how it is done. A kind stands in a file of its own."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ..jobs import count, detect, evaluate, generate, grid, probe
from ..values import JobValues


class Kind(NamedTuple):
    """values: what it takes. run: does it with (values, context), and leaves what it made in `context.result`."""

    values: type[JobValues]
    run: Callable[[Any, Any], None]


KINDS: dict[str, Kind] = {
    "generate": Kind(generate.GenerateValues, generate.run),
    "count": Kind(count.CountValues, count.run),
    "probe": Kind(probe.ProbeValues, probe.run),
    "grid": Kind(grid.GridValues, grid.run),
    "detect": Kind(detect.DetectValues, detect.run),
    "evaluate": Kind(evaluate.EvaluateValues, evaluate.run),
}
