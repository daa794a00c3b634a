"""A pipeline that takes two steps."""

import inspect


def quick(pipe):
    """The same pipeline, two steps a call unless it says otherwise."""
    kind = type(pipe)

    def call(self, *args, **kwargs):
        return kind.__call__(self, *args, **{"num_inference_steps": 2, **kwargs})

    call.__signature__ = inspect.signature(kind.__call__)
    pipe.__class__ = type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})
    return pipe
