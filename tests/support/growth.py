"""Whether a time grows as the length of the input does, on a machine of any speed that may be busy."""

import gc
import time
from collections.abc import Callable
from typing import Any

LONGER = 8
BOUND = LONGER**1.5  # half-way between what a linear (8) and a quadratic (64) reader takes
SLACK = 0.2  # seconds: what a busy machine adds to a short time


def cpu_seconds(run: Callable[[], Any], times: int = 2) -> float:
    """The least processor time of some runs, without that of a collector that walks all other tests' objects."""
    seconds = []
    for _ in range(times):
        gc.collect(0)
        gc.disable()
        start = time.process_time()
        try:
            run()
        finally:
            seconds.append(time.process_time() - start)
            gc.enable()
    return min(seconds)


def assert_linear(run: Callable[[Any], Any], make: Callable[[int], Any], length: int = 1_000_000) -> None:
    """Fail if `run(make(length))` takes a time that grows much faster than the length."""
    short, long = make(length // LONGER), make(length)
    first = cpu_seconds(lambda: run(short))
    second = cpu_seconds(lambda: run(long))
    assert second <= BOUND * first + SLACK, f"{LONGER} times the input takes {second:.2f} s, not {first:.2f} s"
