"""The prompt syntax on text encoders that keep their length: T5, language models.

Their tokenizer reads the words alone, the weights go with its ids, and a weight acts on the hidden states as on CLIP's.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from t2i_tools.errors import UnsupportedModelError
from t2i_tools.handle import Handle
from t2i_tools.longclip.syntax import Piece, flattened, parse_prompt
from t2i_tools.longclip.tensors import PromptIds, plain
from t2i_tools.longclip.windows import shortened
from t2i_tools.models.compiled import forget_compiled

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ARGUMENTS = ("input_ids", "attention_mask")
STATES = ("last_hidden_state", "hidden_states")
logger = logging.getLogger("t2i_tools.longclip")


@dataclass
class WeightedText:
    """A text without its syntax. ends: where in it each weight ends."""

    text: str
    ends: list[int]
    weights: list[float]

    @classmethod
    def of(cls, pieces: list[Piece]) -> WeightedText:
        """The text of pieces in a row."""
        ends = list(accumulate(len(piece.text) for piece in pieces))
        return cls("".join(piece.text for piece in pieces), ends, [piece.weight for piece in pieces])

    @property
    def weighted(self) -> bool:
        """Whether a weight acts."""
        return any(weight != 1 for weight in self.weights)

    def at(self, start: int, end: int) -> float:
        """The weight of the token from `start` to `end`, blanks before it left out; 1 for one without text."""
        if end <= start:
            return 1.0
        start += len(self.text[start:end]) - len(self.text[start:end].lstrip())
        place = bisect_right(self.ends, start)
        return self.weights[place] if place < len(self.weights) else 1.0


@dataclass
class TextReader:
    """Reads for one text encoder, whose tokenizer it takes the place of.

    before, after: what the pipeline puts around the prompt. left: the padding comes first. most: tokens beyond which
    the pipeline itself cuts, unless its call says otherwise.
    """

    name: str
    encoder: PreTrainedModel
    tokenizer: Any
    before: str = ""
    after: str = ""
    left: bool = False
    most: int | None = None
    syntax: bool = True
    longest: dict[str, int] | None = None
    _options: dict[str, Any] = field(default_factory=dict)

    def read(self, text: str) -> WeightedText:
        """What the tokenizer is to read of a text that it is handed, template and all."""
        before, after = self.before, self.after
        if not (text.startswith(before) and text.endswith(after) and len(text) >= len(before) + len(after)):
            before = after = ""
        inner = flattened(parse_prompt(text[len(before) : len(text) - len(after)]).parts)
        return WeightedText.of([Piece(before), *inner, Piece(after)])

    def plain(self, prompt: str) -> str:
        """The words of a prompt."""
        return WeightedText.of(flattened(parse_prompt(prompt).parts)).text

    def window_of(self, prompts: Sequence[str]) -> int:
        """It reads no windows."""
        return 0

    def saved_length(self, asked: int) -> int:
        """The length that the tokenizer is saved with."""
        return asked

    def answer(self, call: Callable[..., Any], text: Any, args: tuple, options: Mapping[str, Any]) -> Any:
        """What the tokenizer gives for prompts, `call` being its own way. Raises UnsupportedModelError."""
        texts = [text] if isinstance(text, str) else text
        if not (isinstance(texts, (list, tuple)) and all(isinstance(one, str) for one in texts)):
            return call(text, *args, **options)
        read = list(map(self.read, texts))
        words = [one.text for one in read]
        self._options = dict(options)
        weighted = any(one.weighted for one in read)
        if not getattr(self.tokenizer, "is_fast", False):
            if weighted:
                raise UnsupportedModelError(
                    f"{self.name} cannot weight words, as its tokenizer does not report where each token stands in "
                    "the text: load the pipeline with a fast tokenizer, or leave out the weights"
                )
            return call(words[0] if isinstance(text, str) else words, *args, **options)
        wanted = options.get("return_offsets_mapping", False)
        encoding = call(words, *args, **{**options, "return_offsets_mapping": True})
        offsets = encoding["offset_mapping"] if wanted else encoding.pop("offset_mapping")
        if options.get("truncation"):
            self._note_cut(read, offsets)
        if weighted:
            weights = torch.tensor(
                [[one.at(start, end) for start, end in row] for one, row in zip(read, offsets.tolist(), strict=True)]
            )
            encoding["input_ids"] = PromptIds.of(encoding["input_ids"], weights)
        return encoding

    def empty(self, rows: int) -> Mapping[str, Tensor]:
        """input_ids and attention_mask (1, rows) of a prompt without words, read as the last ones were."""
        kept = {name: value for name, value in self._options.items() if name != "return_offsets_mapping"}
        side = {"padding_side": "left"} if self.left else {}
        fixed = {"padding": "max_length", "max_length": rows, "truncation": True, "return_tensors": "pt"}
        read = self.tokenizer(self.before + self.after, **{**kept, **fixed, **side})
        return {"attention_mask": torch.ones_like(read["input_ids"])} | {n: read[n] for n in ARGUMENTS if n in read}

    def row(self) -> dict[str, Any]:
        """The longest prompt read so far, for a report."""
        return {"encoder": self.name, **(self.longest or {"window": 0, "windows": 0, "tokens": 0, "cut": 0})}

    def _note_cut(self, read: list[WeightedText], offsets: Tensor) -> None:
        """Note the longest prompt, and warn of words that are not read."""
        for one, row in zip(read, offsets.tolist(), strict=True):
            inside = [end for start, end in row[: self.most] if end > max(start, len(self.before))]
            rest = one.text[max(inside, default=0) :].removesuffix(self.after).strip()
            tokens = len(inside)
            lost = len(self._ids(rest)) if rest else 0
            if self.longest is None or tokens + lost > self.longest["tokens"]:
                self.longest = {"window": len(row), "windows": 1, "tokens": tokens + lost, "cut": lost}
            if rest:
                logger.warning(
                    "%s reads %d tokens, and the rest of the prompt is cut: %r", self.name, tokens, shortened(rest)
                )

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _moved(states: Tensor, nothing: Tensor, weights: Tensor) -> Tensor:
    """e + w (z - e), of hidden states (B, rows, d) and weights (B, rows)."""
    weights = weights.to(states)[..., None]
    return torch.where(weights == 1, states, nothing + weights * (states - nothing))


class WeightedEncoder:
    """Hooks by which the hidden states of weighted tokens become e + w (z - e), e those of an empty prompt there."""

    def __init__(self, reader: TextReader) -> None:
        self.reader = reader
        self._weights: Tensor | None = None
        self._as_tuple = False

    def attach(self, handle: Handle, encoder: nn.Module) -> None:
        """Put the hooks on a text encoder until the handle ends."""
        forget_compiled(encoder)
        handle.on_remove(encoder.register_forward_pre_hook(self.before, prepend=True, with_kwargs=True).remove)
        handle.on_remove(encoder.register_forward_hook(self.after, with_kwargs=True).remove)

    @torch.compiler.disable
    def before(self, encoder: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict] | None:
        """Pre-hook: notes the weights that the ids carry, (B, rows)."""
        named = dict(zip(ARGUMENTS, args, strict=False)) | kwargs
        ids, self._weights = named.get("input_ids"), None
        if not isinstance(ids, PromptIds) or len(args) > len(ARGUMENTS):
            return None
        self._weights, self._as_tuple = ids.weights, named.get("return_dict") is False
        return (), named | {"input_ids": plain(ids), "return_dict": True}

    @torch.compiler.disable
    def after(self, encoder: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
        """Hook: hidden states (B, rows, d), those of weighted tokens moved away from or towards the empty prompt's."""
        if self._weights is None:
            return None
        moved = partial(_moved, weights=self._weights)
        empty = self._read_nothing(encoder, kwargs)
        values = dict(output.items())
        for name in STATES:
            if values.get(name) is not None:
                pair = values[name], empty[name]
                values[name] = moved(*pair) if isinstance(pair[0], Tensor) else tuple(map(moved, *pair))
        weighted = type(output)(**values)
        return weighted.to_tuple() if self._as_tuple else weighted

    @torch.no_grad()
    def _read_nothing(self, encoder: nn.Module, kwargs: dict[str, Any]) -> Mapping[str, Any]:
        ids = kwargs["input_ids"]
        nothing = self.reader.empty(ids.shape[1])
        empty = {name: value.to(ids.device).expand(len(ids), -1) for name, value in nothing.items()}
        return encoder.forward(**kwargs | {name: empty[name] for name in ARGUMENTS if kwargs.get(name) is not None})
