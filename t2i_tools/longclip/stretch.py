"""More positions for a CLIP text encoder: the table, and all that has to agree with its length."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from t2i_tools.errors import UnsupportedModelError
from t2i_tools.handle import Handle
from t2i_tools.longclip.formula import KEEP, RATIO, stretch_positions

if TYPE_CHECKING:
    from transformers import CLIPTokenizer, PreTrainedModel

PLUGIN = "stretched positions"
STOCK = 77


class ClipEmbeddings(Protocol):
    """Token and position embeddings of a CLIP, as transformers keeps them."""

    token_embedding: nn.Embedding
    position_embedding: nn.Embedding
    position_ids: torch.Tensor


def stretch_clip(
    text_encoder: PreTrainedModel, tokenizer: CLIPTokenizer, *, keep: int = KEEP, ratio: int = RATIO
) -> Handle:
    """Stretch a CLIP text encoder from 77 positions to keep + (77 - keep) ratio = 248.

    The first `keep` rows stay as they are, to the bit; between two of the others come ratio - 1 interpolated ones.
    Changes the table, its ids, the configuration and the tokenizer's length; what is saved afterwards opens in plain
    transformers and diffusers at its new length. A pipeline of SD3 or Flux that is already open has cached the old
    length: use `long_prompts`, or set `pipe.tokenizer_max_length`.

    Args:
        text_encoder: A CLIPTextModel, CLIPTextModelWithProjection or CLIPModel.
        tokenizer: Its tokenizer.
        keep: Rows that stay; 20 by default.
        ratio: Positions per row beyond them; 4 by default.

    Returns:
        A handle, whose `remove()` brings the 77 positions back.

    Raises:
        InputError: `keep` or `ratio` is out of range.
        UnsupportedModelError: The encoder is no CLIP, or is stretched already.

    Source: Zhang et al. 2024, arXiv 2403.15378.

    Example:
        >>> with t2i.stretch_clip(pipe.text_encoder, pipe.tokenizer):
        ...     pipe.tokenizer.model_max_length
        248
    """
    if (present := positions(text_encoder)) != STOCK:
        raise UnsupportedModelError(
            f"{type(text_encoder).__name__} has {present} positions, not {STOCK}: it is stretched already"
        )
    table = stretch_positions(read_positions(text_encoder), keep, ratio)
    handle = Handle(text_encoder, PLUGIN, lambda: [{"positions": len(table), "were": STOCK, "kept": keep}])
    set_positions(handle, text_encoder, table)
    set_attribute(handle, tokenizer, "model_max_length", len(table))
    return handle


def core(text_encoder: PreTrainedModel) -> PreTrainedModel:
    """The module with embeddings and layers: CLIPTextModel itself, or what other classes keep as `text_model`."""
    return getattr(text_encoder, "text_model", text_encoder)


def embeddings(text_encoder: PreTrainedModel) -> ClipEmbeddings:
    """Token and position embeddings, wherever transformers keeps them. Raises UnsupportedModelError."""
    found = getattr(core(text_encoder), "embeddings", None)
    if found is None or not hasattr(found, "position_embedding") or not hasattr(found, "token_embedding"):
        raise UnsupportedModelError(
            f"{type(text_encoder).__name__} is not a CLIP text encoder: it has no positions to stretch"
        )
    return found


def positions(text_encoder: PreTrainedModel) -> int:
    """How many tokens the text encoder reads. Raises UnsupportedModelError."""
    return embeddings(text_encoder).position_embedding.num_embeddings


def stock_rows(length: int, keep: int = KEEP, ratio: int = RATIO) -> torch.Tensor:
    """(length,): the rows of the stretched table that are those of the table before it, none of which is lost."""
    rows = torch.arange(length)
    return torch.where(rows < keep, rows, keep + ratio * (rows - keep))


@torch.no_grad()
def read_positions(text_encoder: PreTrainedModel) -> torch.Tensor:
    """The table (L, d), by a call: an offloaded encoder's weights come where it computes, and only then."""
    table = embeddings(text_encoder).position_embedding
    device = "cpu" if table.weight.is_meta else table.weight.device
    return table(torch.arange(table.num_embeddings, device=device))


def set_positions(handle: Handle, text_encoder: PreTrainedModel, table: torch.Tensor) -> None:
    """Give the text encoder another position table, and the old one back when the handle ends."""
    inner = embeddings(text_encoder)
    old = inner.position_embedding
    table = table.to(read_positions(text_encoder))
    handle.on_remove(partial(_put_back, text_encoder, old))
    inner.position_embedding = nn.Embedding.from_pretrained(table, freeze=not old.weight.requires_grad)
    _number(inner, table.device)
    configs = [text_encoder.config, core(text_encoder).config, getattr(text_encoder.config, "text_config", None)]
    for config in {id(config): config for config in configs}.values():
        if hasattr(config, "max_position_embeddings"):
            set_attribute(handle, config, "max_position_embeddings", len(table))


def set_attribute(handle: Handle, thing: Any, name: str, value: Any) -> None:
    """Set an attribute, and give it its old value when the handle ends, unless somebody has set another since."""
    handle.on_remove(partial(_reset, thing, name, value, getattr(thing, name)))
    setattr(thing, name, value)


def _put_back(text_encoder: PreTrainedModel, old: nn.Embedding) -> None:
    inner, present = embeddings(text_encoder), read_positions(text_encoder)
    inner.position_embedding = old if old.weight.is_meta else old.to(present)  # on meta it was offloaded before
    _number(inner, present.device)


def _number(inner: ClipEmbeddings, device: torch.device) -> None:
    inner.position_ids = torch.arange(inner.position_embedding.num_embeddings, device=device)[None]


def _reset(thing: Any, name: str, value: Any, old: Any) -> None:
    if getattr(thing, name) == value:
        setattr(thing, name, old)
