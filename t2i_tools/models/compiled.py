"""What `torch.compile` did to a model, for plugins that hook into it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

logger = logging.getLogger(__name__)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside of what `torch.compile` returns."""
    return getattr(model, "_orig_mod", model)


@contextmanager
def around_calls(
    model: nn.Module, before: Callable[..., None] | None = None, after: Callable[..., None] | None = None
) -> Iterator[None]:
    """Run functions before and after each call of a model, outside of its compiled code, whatever was compiled before.

    before: called with (model, args, kwargs). after: called with (model, args, kwargs, output).
    """
    if model._compiled_call_impl is None:
        hooks: list[Any] = [] if before is None else [model.register_forward_pre_hook(before, with_kwargs=True)]
        hooks += [] if after is None else [model.register_forward_hook(after, with_kwargs=True)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        return
    compiled = model._compiled_call_impl  # hooks would be compiled into it, anew for each image

    def call(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(model, args, kwargs)
        output = compiled(*args, **kwargs)
        if after is not None:
            after(model, args, kwargs, output)
        return output

    model._compiled_call_impl = call
    try:
        yield
    finally:
        model._compiled_call_impl = compiled


def is_compiled(model: nn.Module) -> bool:
    """Whether it, or a block of it, was compiled; as far as the module itself shows."""
    return unwrapped(model) is not model or any(m._compiled_call_impl is not None for m in model.modules())


def forget_compiled(model: nn.Module) -> None:
    """Compiled code never looks for new hooks: make it compile again."""
    if is_compiled(model):
        logger.warning("%s was compiled before: it compiles again at its next call", type(unwrapped(model)).__name__)
        torch.compiler.reset()
