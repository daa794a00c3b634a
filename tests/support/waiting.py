"""Waiting that ends."""

import time


def wait_until(condition, seconds=120.0, every=0.02):
    """What `condition` gives as soon as it is true; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"still not so after {seconds:.0f} s"
        time.sleep(every)
    return value
