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
    return name in _arguments(type(pipe).__call__)


def call_default(pipe: DiffusionPipeline, name: str) -> Any:
    """The default of an argument of the pipeline's call; None where it has no such argument."""
    parameter = _arguments(type(pipe).__call__).get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


@cache
def _arguments(call: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(call).parameters
