"""How a tokenizer reads prompts while they may be long: in windows, with weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from t2i_tools.longclip.stretch import STOCK, positions
from t2i_tools.longclip.syntax import Piece, flattened, parse_prompt
from t2i_tools.longclip.tensors import PromptIds
from t2i_tools.longclip.windows import (
    Row,
    Split,
    Token,
    fill_windows,
    keep_together,
    pad_windows,
    read_tokens,
    shortened,
    text_of,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Method = Literal["stretch", "chunk", "truncate"]
READINGS: tuple[Method, ...] = get_args(Method)
logger = logging.getLogger("t2i_tools.longclip")


@dataclass
class Reader:
    """Reads for one text encoder, in windows of its own length.

    syntax: whether brackets are weights. length: of a window, where it is not to be what the encoder has at present.
    pooled: the denoiser is given the pooled vector of the first window alone, so that no other is read.
    split: what goes whole into a window, where there are several. fixed: tokens that the pipeline gives a long CLIP,
    whatever the prompt's length.
    """

    name: str
    encoder: PreTrainedModel
    tokenizer: Any
    method: Method = "chunk"
    syntax: bool = True
    length: int | None = None
    pooled: bool = False
    split: Split = "words"
    fixed: int | None = None
    longest: dict[str, int] | None = None
    warned: bool = False

    def __post_init__(self) -> None:
        self.own = positions(self.encoder)

    @property
    def limit(self) -> int | None:
        """The most windows that the encoder is given; None: as many as the prompt needs."""
        return 1 if self.method == "truncate" or self.pooled else None

    @property
    def size(self) -> int:
        """The most tokens of a window, begin and end included."""
        return self.fixed or self.length or positions(self.encoder)

    def read(self, prompt: str) -> list[list[Token]]:
        """All windows of a prompt, also those beyond the limit."""
        parts = parse_prompt(prompt).parts if self.syntax else [[Piece(prompt)]]
        if self.pooled:
            parts = [flattened(parts)]
        names = {number: word for word, number in self.tokenizer.get_added_vocab().items()}
        tokens = [keep_together(part, names) for part in read_tokens(parts, self._tokenize)]
        if self.limit is None:
            return fill_windows(tokens, self.size - 2, self.split)
        room = self.size - 2  # as the tokenizer itself cuts: in the middle of a word
        return [part[i : i + room] for part in tokens for i in range(0, len(part), room)] or [[]]

    def plain(self, prompt: str) -> str:
        """The words of a prompt."""
        parts = parse_prompt(prompt).parts if self.syntax else [[Piece(prompt)]]
        return "".join(piece.text for piece in flattened(parts))

    def saved_length(self, asked: int) -> int:
        """The length that the tokenizer is saved with."""
        return positions(self.encoder)

    def answer(self, call: Callable[..., Any], text: Any, args: tuple, options: Mapping[str, Any]) -> Any:
        """What the tokenizer gives for prompts."""
        from transformers import BatchEncoding

        prompts = [text] if isinstance(text, str) else text
        filled = options["padding"] == "max_length"
        if filled and self.limit:
            self.warn(prompts)
        return BatchEncoding(self.encode(prompts, (options.get("max_length") or 0) if filled else 0))

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
        self._warn_of_lengths(kept)
        rows = [pad_windows(windows, size, number, *self._special()) for windows in kept]
        ids, weights, mask = (torch.tensor(column) for column in zip(*rows, strict=True))
        return {"input_ids": PromptIds.of(ids, weights), "attention_mask": mask}

    def window_of(self, prompts: Sequence[str]) -> int:
        """How many tokens the windows have in which these prompts are read together."""
        return self.window([self.read(prompt) for prompt in prompts])

    def window(self, prompts: Sequence[Sequence[Sequence[Token]]], length: int = 0) -> int:
        """Tokens of the windows of prompts read together: what 77 hold was read whole before, and is not stretched."""
        fits = self.fixed is None and length <= STOCK
        short = fits and all(len(windows) == 1 and len(windows[0]) <= STOCK - 2 for windows in prompts)
        return min(self.size, STOCK) if short else self.size

    def warn(self, prompts: Sequence[str]) -> None:
        """Say what of the prompts is not read."""
        for windows in map(self.read, prompts):
            if cut := text_of(chain.from_iterable(windows[self.limit :])):
                cut = shortened(cut)
                why = "its pooled vector alone is used" if self.pooled else "chunk and stretch read all of it"
                logger.warning(
                    "%s reads %d tokens, and the rest of the prompt is cut: %r (%s)",
                    self.name,
                    self.size - 2,
                    shortened(cut),
                    why,
                )

    def _warn_of_lengths(self, prompts: Sequence[Sequence[Sequence[Token]]]) -> None:
        """Say, once, that a batch lengthens its shorter prompts."""
        if not self.warned and len({(len(windows), self.window([windows])) for windows in prompts}) > 1:
            self.warned = True
            logger.warning(
                "%s reads prompts of different lengths in one batch: the shorter ones get empty windows, and other "
                "images than alone (make them in batches of one length)",
                self.name,
            )

    def empty(self, size: int) -> Row:
        """A window without words."""
        return pad_windows([], size, 1, *self._special())

    def row(self) -> dict[str, Any]:
        """The longest prompt read so far, for a report."""
        unread = {"window": self.size, "windows": 0, "tokens": 0, "cut": 0}
        return {"encoder": self.name, **(self.longest or unread)}

    def _tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        read = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return read["input_ids"], read["offset_mapping"]

    def _special(self) -> tuple[int, int, int]:
        return self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
