"""How a tokenizer reads prompts while they may be long: in windows, with weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from typing import Any, Literal, get_args

import torch
from torch import nn

from t2i_tools.handle import Handle, active_handle
from t2i_tools.longclip.carried import PromptIds
from t2i_tools.longclip.stretch import STOCK, positions
from t2i_tools.longclip.syntax import Piece, parse_prompt
from t2i_tools.longclip.windows import Row, Token, fill_windows, lay_out, read_tokens, written

Method = Literal["stretch", "chunk", "truncate"]
METHODS: tuple[Method, ...] = get_args(Method)
PLUGIN = "long prompts"
TOO_LONG = "sequence-length-is-longer-than-the-specified-maximum"
logger = logging.getLogger("t2i_tools.longclip")


@dataclass
class Reader:
    """Reads for one text encoder, in windows of its own length.

    syntax: whether brackets are weights. length: of a window, where it is not to be what the encoder has at present.
    """

    name: str
    encoder: nn.Module
    tokenizer: Any
    method: Method = "chunk"
    syntax: bool = True
    length: int | None = None
    longest: dict[str, int] | None = None

    def __post_init__(self) -> None:
        self.own = positions(self.encoder)

    @property
    def limit(self) -> int | None:
        """The most windows that the encoder is given; None: as many as the prompt needs."""
        return 1 if self.method == "truncate" else None

    @property
    def size(self) -> int:
        """The most tokens of a window, begin and end included."""
        return self.length or positions(self.encoder)

    def read(self, prompt: str) -> list[list[Token]]:
        """All windows of a prompt, also those beyond the limit."""
        parts = parse_prompt(prompt) if self.syntax else [[Piece(prompt)]]
        tokens = read_tokens(parts, self._tokenize)
        if self.limit is None:
            return fill_windows(tokens, self.size - 2)
        room = self.size - 2  # as the tokenizer itself cuts: in the middle of a word
        return [part[i : i + room] for part in tokens for i in range(0, len(part), room)] or [[]]

    def encode(self, prompts: Sequence[str], length: int = 0) -> dict[str, torch.Tensor]:
        """input_ids and attention_mask (B, rows), rows being a whole number of windows, at least `length` of them."""
        read = [self.read(prompt) for prompt in prompts]
        kept = [windows[: self.limit] for windows in read]
        number, size = max(map(len, kept)), self.window(kept, length)
        if self.limit is None:
            number = max(number, -(-length // size))
        tokens, held = (max(sum(map(len, windows)) for windows in prompts) for prompts in (read, kept))
        if self.longest is None or tokens > self.longest["tokens"]:
            self.longest = {"window": size, "windows": number, "tokens": tokens, "cut": tokens - held}
        rows = [lay_out(windows, size, number, *self._special()) for windows in kept]
        ids, weights, mask = (torch.tensor(column) for column in zip(*rows, strict=True))
        return {"input_ids": PromptIds.of(ids, weights), "attention_mask": mask}

    def window(self, prompts: Sequence[Sequence[Sequence[Token]]], length: int = 0) -> int:
        """Tokens of the windows of prompts read together: what 77 hold was read whole before, and is not stretched."""
        short = length <= STOCK and all(len(windows) == 1 and len(windows[0]) <= STOCK - 2 for windows in prompts)
        return min(self.size, STOCK) if short else self.size

    def warn(self, prompts: Sequence[str]) -> None:
        """Say what of the prompts is not read."""
        for windows in map(self.read, prompts):
            if cut := written(chain.from_iterable(windows[self.limit :])):
                logger.warning(
                    "%s reads %d tokens, and the rest of the prompt is cut: %r (chunk and stretch read all of it)",
                    self.name,
                    self.size - 2,
                    cut,
                )

    def empty(self, size: int) -> Row:
        """A window without words."""
        return lay_out([], size, 1, *self._special())

    def row(self) -> dict[str, Any]:
        """The longest prompt read so far, for a report."""
        unread = {"window": self.size, "windows": 0, "tokens": 0, "cut": 0}
        return {"encoder": self.name, **(self.longest or unread)}

    def _tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        read = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return read["input_ids"], read["offset_mapping"]

    def _special(self) -> tuple[int, int, int]:
        return self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id


def attach_reader(reader: Reader) -> Handle:
    """From now on the tokenizer answers through the reader where a pipeline asks it: for filled-up tensors."""
    tokenizer = reader.tokenizer
    handle = Handle(tokenizer, PLUGIN)
    handle.reader = reader
    handle.on_remove(partial(_restore_class, tokenizer))
    tokenizer.__class__ = reading_class(type(tokenizer))
    if TOO_LONG not in tokenizer.deprecation_warnings:  # a warning that it gives once, and that is not true now
        tokenizer.deprecation_warnings[TOO_LONG] = True
        handle.on_remove(partial(tokenizer.deprecation_warnings.pop, TOO_LONG, None))
    return handle


@cache
def reading_class(kind: type) -> type:
    """A tokenizer class like `kind`, whose calls for filled-up tensors go to the reader, if there is one."""
    from transformers import BatchEncoding

    def __call__(self: Any, text: Any = None, *args: Any, **options: Any) -> BatchEncoding:
        handle = active_handle(self, PLUGIN)
        if handle is None or not options.get("padding") or options.get("return_tensors") != "pt":
            return kind.__call__(self, text, *args, **options)
        prompts = [text] if isinstance(text, str) else text
        filled = options["padding"] == "max_length"
        if filled and handle.reader.limit:
            handle.reader.warn(prompts)
        return BatchEncoding(handle.reader.encode(prompts, (options.get("max_length") or 0) if filled else 0))

    def save_pretrained(self: Any, *args: Any, **options: Any) -> Any:
        """As the plain pipeline needs it, which asks for as many tokens as it says."""
        asked, handle = self.model_max_length, active_handle(self, PLUGIN)
        self.model_max_length = positions(handle.reader.encoder) if handle else asked
        try:
            return kind.save_pretrained(self, *args, **options)
        finally:
            self.model_max_length = asked

    # Its name is written into what the tokenizer saves.
    methods = {"__call__": __call__, "save_pretrained": save_pretrained}
    return type(kind.__name__, (kind,), methods | {"__module__": kind.__module__, "t2i_plain": kind})


def _restore_class(tokenizer: Any) -> None:
    if type(tokenizer) is reading_class(plain := getattr(type(tokenizer), "t2i_plain", object)):
        tokenizer.__class__ = plain
