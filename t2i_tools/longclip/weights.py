"""Other weights for a text encoder that stays where it is, and its own back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from t2i_tools.errors import UnsupportedModelError
from t2i_tools.handle import Handle
from t2i_tools.longclip.stretch import core, read_positions, set_positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROJECTION = {"text_projection.weight"}  # only some classes have one


def take_over_weights(handle: Handle, text_encoder: PreTrainedModel, other: PreTrainedModel) -> None:
    """Until the handle ends, a text encoder has the weights of another CLIP, and as many positions.

    Words that were added to its vocabulary keep their vectors. Raises UnsupportedModelError.
    """
    if not same_size(text_encoder, other):
        raise UnsupportedModelError(
            f"the weights are those of {describe_size(other)}, and do not fit a text encoder of "
            f"{describe_size(text_encoder)}"
        )
    new, own = _weights(other), _weights(text_encoder)
    if any(parameter.is_meta for parameter in own.values()):
        raise UnsupportedModelError(
            "the weights of this text encoder are loaded layer by layer: load the others before "
            "enable_sequential_cpu_offload()"
        )
    set_positions(handle, text_encoder, read_positions(other))
    for name, parameter in own.items():
        if name in new:
            handle.on_remove(partial(_put_back, text_encoder, name, parameter.data))
            parameter.data = _rows(new[name].detach().to(parameter.data, copy=True), parameter.data)


def same_size(text_encoder: PreTrainedModel, other: PreTrainedModel) -> bool:
    """Whether it is a CLIP text encoder of the same width and depth."""
    return (
        describe_size(text_encoder) == describe_size(other)
        and _weights(text_encoder).keys() - PROJECTION <= _weights(other).keys()
    )


def _weights(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Its parameters but the positions, by the names that every layout shares; below a LoRA, where there is one."""
    named = {name.replace(".base_layer.", "."): value for name, value in core(model).named_parameters()}
    if (projection := getattr(model, "text_projection", None)) is not None:
        named["text_projection.weight"] = projection.weight
    return {name: value for name, value in named.items() if "position_embedding" not in name and ".lora_" not in name}


def _put_back(text_encoder: PreTrainedModel, name: str, old: Tensor) -> None:
    parameter = _weights(text_encoder)[name]  # another one than it was, where words were added since
    if parameter.is_meta:
        raise UnsupportedModelError(
            "the text encoder was offloaded since its weights were exchanged: it keeps them. Call remove_all_hooks() "
            "of the pipeline before the removal"
        )
    parameter.data = _rows(old.to(parameter.data), parameter.data)


def _rows(values: Tensor, present: Tensor) -> Tensor:
    """The values, with what the present ones have in rows beyond."""
    return (
        torch.cat([values[: len(present)], present[len(values) :]])
        if values.ndim and len(values) != len(present)
        else values
    )


def describe_size(model: PreTrainedModel) -> str:
    """How large a CLIP text encoder is, in words."""
    config = core(model).config
    return f"{config.num_hidden_layers} layers of {config.hidden_size}"
