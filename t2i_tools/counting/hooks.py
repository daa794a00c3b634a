"""The count token put into a pipeline's tokenizers and text encoders, without a row in their vocabulary."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from t2i_tools.counting.token import CountToken, token_encoders
from t2i_tools.errors import InputError
from t2i_tools.handle import Handle
from t2i_tools.models.compiled import forget_compiled

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from transformers import PreTrainedModel


def count_token(pipe: DiffusionPipeline, token: CountToken | str | os.PathLike) -> Handle:
    """Let prompts contain a count token's word until the handle's `remove()`; what else they say is read as before.

    Each encoder reads the token's vector where the word stands, of several one after the other. No embedding is
    resized, and the pooled vector of CLIP is taken at the end of the text also where an old config would take it at the
    highest id, the new word's. Several tokens may be in use at once.

    Args:
        pipe: A text-to-image pipeline.
        token: A `CountToken`, or the file that its `save` wrote.

    Returns:
        The handle, whose report says per encoder how often the word was read.

    Raises:
        InputError: It is no token, or the tokenizer already has the word.
        ModelError: The file cannot be read.
        UnsupportedModelError: The token does not fit the pipeline.

    Example:
        >>> with t2i.count_token(pipe, "seven.safetensors"):  # doctest: +SKIP
        ...     image = pipe("a photo of <count-7> apples").images[0]
    """
    if not isinstance(token, (CountToken, str, os.PathLike)):
        raise InputError(
            f"{type(token).__name__} is not a count token: pass a CountToken or the file that its save wrote"
        )
    token = token if isinstance(token, CountToken) else CountToken.load(token)
    token.check(pipe)
    parts = token_encoders(pipe)
    writers: list[VectorWriter] = []
    handle = Handle(parts[0].encoder, f"count token {token.word}", lambda: [writer.row() for writer in writers])
    words: dict[int, AddedWord] = {}
    try:
        for part in parts:
            forget_compiled(part.encoder)
            if id(part.tokenizer) not in words:  # two encoders may share one
                words[id(part.tokenizer)] = word = AddedWord(part.tokenizer, token.word)
                handle.on_remove(word.remove)
            writer = VectorWriter(part.name, part.encoder, token, words[id(part.tokenizer)].id)
            handle.on_remove(writer.end)
            writers.append(writer)
    except BaseException:
        handle.remove()
        raise
    return handle


class AddedWord:
    """A word that a tokenizer knows for a while. Tokenizers only add; to remove one, theirs is written out and read."""

    def __init__(self, tokenizer: Any, word: str) -> None:
        if word in tokenizer.get_added_vocab():
            raise InputError(f"{word} is already in use: remove its handle, or unload that textual inversion")
        self.tokenizer, self.word = tokenizer, word
        tokenizer.add_tokens([word])
        self.id = tokenizer.convert_tokens_to_ids(word)

    def remove(self) -> None:
        """Forget the word. Where others were added since, its number stays taken, so that theirs stay right."""
        backend = self.tokenizer.backend_tokenizer
        state = json.loads(backend.to_str())
        entries = state["added_tokens"]
        own = next((entry for entry in entries if entry["content"] == self.word), None)
        if own is None:  # somebody has unloaded it
            return
        if own["id"] == max(entry["id"] for entry in entries):
            entries.remove(own)
        else:
            own["content"] = f"{self.word} (removed)"
        backend.__setstate__(json.dumps(state).encode())  # in place: transformers has wrapped CLIP's `decode` on it


class LearnedWord(Protocol):
    """A word and what it means: text encoder's name in the pipeline -> vectors (k, d)."""

    @property
    def word(self) -> str: ...

    @property
    def vectors(self) -> Mapping[str, torch.Tensor]: ...


class VectorWriter:
    """Writes a token's vectors over the embeddings of its word.

    The word's id lies outside the vocabulary: it is exchanged for 0 before anything looks at the ids.
    """

    def __init__(self, name: str, encoder: PreTrainedModel, token: LearnedWord, word: int) -> None:
        self.name, self.encoder, self.token, self.word = name, encoder, token, word
        self.places: torch.Tensor | None = None
        self.seen = 0
        self._hooks = [
            encoder.register_forward_pre_hook(self.before_encoder, with_kwargs=True),
            encoder.register_forward_hook(self.after_encoder, always_call=True),
        ]
        self._embeddings: list[nn.Module] = []
        self._bound: list[Any] = []
        self.bind()

    def bind(self) -> None:
        """Put the hooks on the embedding, which a textual inversion loaded meanwhile may have exchanged."""
        embeddings = input_embeddings(self.encoder)
        if [id(one) for one in embeddings] == [id(one) for one in self._embeddings]:
            return
        self._unbind()
        self._embeddings = embeddings
        for embedding in embeddings:
            self._bound.append(embedding.register_forward_pre_hook(self.before_embedding))
            self._bound.append(embedding.register_forward_hook(self.after_embedding))

    def end(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()
        self._unbind()

    @torch.compiler.disable  # what is compiled next must not hold this call's places
    def before_encoder(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Pre-hook of the encoder: what it looks up in the ids, such as the end of the text, it finds as ever."""
        self.bind()
        if kwargs.get("input_ids") is not None:
            return args, {**kwargs, "input_ids": self.hide(kwargs["input_ids"])}
        if args and isinstance(args[0], torch.Tensor):
            return (self.hide(args[0]), *args[1:]), kwargs
        return args, kwargs

    @torch.compiler.disable
    def before_embedding(self, module: nn.Module, args: tuple) -> tuple | None:
        """Pre-hook of the embedding, for those who call a part of the encoder alone."""
        return (self.hide(args[0]), *args[1:]) if self.places is None and args else None

    def hide(self, ids: torch.Tensor) -> torch.Tensor:
        """The ids with 0 where the word stands, which is noted."""
        self.places = ids == self.word
        return torch.where(self.places, torch.zeros_like(ids), ids)

    @torch.compiler.disable
    def after_embedding(self, module: nn.Module, args: tuple, embeds: torch.Tensor) -> torch.Tensor:
        """Hook of the embedding: (B, L, d) with the vectors in the word's places, in turn."""
        places, self.places = self.places, None
        if places is None:
            return embeds
        self.seen += int(places.sum())
        vectors = self.token.vectors[self.name].to(embeds.device, embeds.dtype)
        vectors = vectors * getattr(module, "embed_scale", 1.0)  # Gemma's
        order = (places.cumsum(-1) - 1).clamp(min=0) % len(vectors)
        return torch.where(places[..., None], vectors[order.to(vectors.device)], embeds)

    @torch.compiler.disable
    def after_encoder(self, module: nn.Module, args: tuple, output: Any) -> None:
        """Hook of the encoder, called after an exception too."""
        self.places = None

    def row(self) -> dict[str, Any]:
        """For the report: `seen` is how often the word was read."""
        vector = self.token.vectors[self.name]
        return {"encoder": self.name, "word": self.token.word, "width": vector.shape[-1], "seen": self.seen}

    def _unbind(self) -> None:
        for hook in self._bound:
            hook.remove()
        self._bound = []


def input_embeddings(encoder: PreTrainedModel) -> list[nn.Module]:
    """The modules that look ids up in an encoder's table: T5 has two that share it, and calls the hidden one."""
    table = encoder.get_input_embeddings().weight

    def shared(weight: torch.Tensor) -> bool:
        return weight is table or (table.is_meta and weight.shape == table.shape)  # offloaded, each has its own

    return [module for module in encoder.modules() if isinstance(module, nn.Embedding) and shared(module.weight)]
