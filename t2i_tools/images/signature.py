"""What the call of a pipeline takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def takes(pipe: DiffusionPipeline, name: str) -> bool:
    """Whether the pipeline's call has an argument of that name."""
    return name in _arguments_of(pipe)


def call_default(pipe: DiffusionPipeline, name: str) -> Any:
    """The default of an argument of the pipeline's call; None where it has no such argument."""
    parameter = _arguments_of(pipe).get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def _arguments_of(pipe: DiffusionPipeline) -> Mapping[str, inspect.Parameter]:
    """Those of the stock call: one that a plugin wraps around it holds the pipeline, and is not to be kept."""
    return _arguments(inspect.unwrap(type(pipe).__call__))


@cache
def _arguments(call: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(call).parameters
