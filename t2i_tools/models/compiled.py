"""What `torch.compile` did to a model, for plugins that hook into it."""

from __future__ import annotations

import logging

import torch
from torch import nn

logger = logging.getLogger(__name__)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside of what `torch.compile` returns."""
    return getattr(model, "_orig_mod", model)


def is_compiled(model: nn.Module) -> bool:
    """Whether it, or a block of it, was compiled; as far as the module itself can tell."""
    return unwrapped(model) is not model or any(m._compiled_call_impl is not None for m in model.modules())


def forget_compiled(model: nn.Module) -> None:
    """Compiled code never looks for new hooks: make it compile again."""
    if is_compiled(model):
        logger.warning("%s was compiled before: it compiles again at its next call", type(unwrapped(model)).__name__)
        torch.compiler.reset()
