"""What the text encoders of a pipeline read of a prompt: words, weights, windows, and what is cut."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from t2i_tools.errors import InputError
from t2i_tools.handle import active_handle
from t2i_tools.longclip.patch import check_method, is_clip
from t2i_tools.longclip.positions import KEEP, RATIO
from t2i_tools.longclip.reader import PLUGIN, Method, Reader
from t2i_tools.longclip.stretch import STOCK, positions
from t2i_tools.longclip.windows import written
from t2i_tools.models import TextEncoder, text_encoders
from t2i_tools.prompts import WORD, TokenSpans, token_spans

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

STRETCHED = KEEP + (STOCK - KEEP) * RATIO


class RulerWord(NamedTuple):
    """A word and how it is read. tokens: its positions, or those it would have. window: counted from 0."""

    text: str
    tokens: range
    window: int
    weight: float
    read: bool


@dataclass(frozen=True)
class Ruler:
    """What one text encoder reads. encoder: its name in the pipeline. window: tokens of a window, begin and end
    included. windows: how many are read. words: all of the prompt, brackets of weights taken out."""

    encoder: str
    window: int
    windows: int
    words: tuple[RulerWord, ...]

    @property
    def tokens(self) -> int:
        """Tokens that are read, begin and end of each window not counted."""
        return sum(len(word.tokens) for word in self.words if word.read)

    @property
    def cut(self) -> str:
        """The words that are not read."""
        return " ".join(word.text for word in self.words if not word.read)

    def __str__(self) -> str:
        windows = groupby((word for word in self.words if word.read), lambda word: word.window)
        read = " | ".join(" ".join(word.text for word in words) for _, words in windows)
        return f"{self.encoder}: {read}" + (f" || cut: {self.cut}" if self.cut else "")


def token_ruler(
    pipe: DiffusionPipeline,
    prompt: str,
    method: Method | None = None,
    *,
    syntax: bool = True,
    max_sequence_length: int | None = None,
) -> list[Ruler]:
    """What each text encoder reads of a prompt; none of them is run.

    method: as if `long_prompts(pipe, method, syntax=syntax)` were on; None: as the pipeline is now. The rulers of
    encoders that are no CLIP are the same with all methods. max_sequence_length: theirs, as in the pipeline's call.
    Raises InputError or UnsupportedModelError.
    """
    if method is not None:
        check_method(method)
    if not isinstance(prompt, str):
        raise InputError(f"the prompt is a {type(prompt).__name__}: pass one text")
    parts = text_encoders(pipe)
    others = {}
    if not all(map(is_clip, parts)):
        others = {spans.encoder: spans for spans in token_spans(pipe, prompt, max_sequence_length=max_sequence_length)}
    return [
        _of_windows(part, _reader(part, method, syntax), prompt) if is_clip(part) else _of_spans(others[part.name])
        for part in parts
    ]


def _reader(part: TextEncoder, method: Method | None, syntax: bool) -> Reader:
    handle = active_handle(part.tokenizer, PLUGIN)
    own = positions(part.encoder) if handle is None else handle.reader.own
    if method is not None:
        length = STRETCHED if method == "stretch" and own == STOCK else own
        return Reader(part.name, part.encoder, part.tokenizer, method, syntax, length)
    return handle.reader if handle else Reader(part.name, part.encoder, part.tokenizer, "truncate", syntax=False)


def _of_windows(part: TextEncoder, reader: Reader, prompt: str) -> Ruler:
    windows, words = reader.read(prompt), []
    size = reader.window([windows[: reader.limit]])
    for number, window in enumerate(windows):
        start = number * size + 1
        read = reader.limit is None or number < reader.limit
        for _, group in groupby(window, lambda token: token.word):
            tokens = list(group)
            words.append(RulerWord(written(tokens), range(start, start + len(tokens)), number, tokens[0].weight, read))
            start += len(tokens)
    return Ruler(part.name, size, len(windows[: reader.limit]), tuple(words))


def _of_spans(spans: TokenSpans) -> Ruler:
    words = [RulerWord(word.text, word.tokens, 0, 1.0, True) for word in spans.words]
    cut = [RulerWord(text, range(spans.length, spans.length), 0, 1.0, False) for text in WORD.findall(spans.cut)]
    return Ruler(spans.encoder, spans.length, 1, (*words, *cut))
