"""What the text encoders of a pipeline read of a prompt: words, weights, windows, and what is cut."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from t2i_tools.errors import InputError
from t2i_tools.longclip.api import check_method, is_clip, window_reader
from t2i_tools.longclip.formula import KEEP, RATIO
from t2i_tools.longclip.reader import Method, Reader
from t2i_tools.longclip.stretch import STOCK, positions
from t2i_tools.longclip.syntax import Note, Parsed, Piece, flattened, parse_prompt
from t2i_tools.longclip.weighted import WeightedText
from t2i_tools.longclip.windows import text_of
from t2i_tools.models.anatomy import TextEncoder, text_encoders
from t2i_tools.models.prompts import WORD, prompt_reader, prompt_reading, read_spans

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
    included. windows: how many are read. words: all of the prompt, brackets of weights taken out. notes: what of its
    syntax does not act here."""

    encoder: str
    window: int
    windows: int
    words: tuple[RulerWord, ...]
    notes: tuple[Note, ...] = ()

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
    """Tell what each text encoder reads of a prompt, and what is cut; none of them is run.

    Args:
        pipe: A pipeline of diffusers.
        prompt: As the pipeline's call takes it.
        method: As if `long_prompts(pipe, method, syntax=syntax)` were on; None (the default): as the pipeline is now.
        syntax: Whether brackets are weights, with a method; True by default.
        max_sequence_length: As in the pipeline's call, for encoders other than CLIP, whose length no method changes.

    Returns:
        One ruler per text encoder. Of an encoder that gives the denoiser its pooled vector alone (Flux's CLIP) what is
        behind the first window is cut, whatever the method.

    Raises:
        InputError: The prompt is no text, or the method unknown.
        UnsupportedModelError: It is not known how the pipeline reads a prompt.

    Example:
        >>> print(t2i.token_ruler(pipe, "two cats", "stretch")[0])
        text_encoder: two cats
    """
    if method is not None:
        check_method(method)
    if not isinstance(prompt, str):
        raise InputError(f"the prompt is a {type(prompt).__name__}: pass one text")
    rulers = []
    for part in text_encoders(pipe):
        if is_clip(part):
            rulers.append(_of_windows(pipe, part, _reader(pipe, part, method, syntax), prompt))
        else:
            rulers.append(_of_text(pipe, part, prompt, _acts(part, method, syntax), max_sequence_length))
    return rulers


def _reader(pipe: DiffusionPipeline, part: TextEncoder, method: Method | None, syntax: bool) -> Reader:
    present = prompt_reader(part.tokenizer)
    own = present.own if isinstance(present, Reader) else positions(part.encoder)
    if method is not None:
        length = STRETCHED if method == "stretch" and own == STOCK else own
        return window_reader(pipe, part, method, syntax, length)
    return present if isinstance(present, Reader) else window_reader(pipe, part, "truncate", False)


def _acts(part: TextEncoder, method: Method | None, syntax: bool) -> bool:
    """Whether brackets are weights for an encoder that keeps its length."""
    present = prompt_reader(_tokenizer(part))
    return syntax if method is not None else present is not None and present.syntax


def _tokenizer(part: TextEncoder) -> Any:
    return getattr(part.tokenizer, "tokenizer", part.tokenizer)  # a processor's


def _of_windows(pipe: DiffusionPipeline, part: TextEncoder, reader: Reader, prompt: str) -> Ruler:
    if hasattr(pipe, "maybe_convert_prompt"):  # a learned word of several vectors becomes several
        prompt = pipe.maybe_convert_prompt(prompt, part.tokenizer)
    windows, words = reader.read(prompt), []
    size = reader.window([windows[: reader.limit]])
    for number, window in enumerate(windows):
        start = number * size + 1
        read = reader.limit is None or number < reader.limit
        for _, group in groupby(window, lambda token: token.word):
            tokens = list(group)
            words.append(RulerWord(text_of(tokens), range(start, start + len(tokens)), number, tokens[0].weight, read))
            start += len(tokens)
    notes = parse_prompt(prompt).notes if reader.syntax else ()
    return Ruler(part.name, size, len(windows[: reader.limit]), tuple(words), notes)


def _of_text(pipe: DiffusionPipeline, part: TextEncoder, prompt: str, syntax: bool, longest: int | None) -> Ruler:
    parsed = parse_prompt(prompt) if syntax else Parsed([[Piece(prompt)]])
    text = WeightedText.of(flattened(parsed.parts))
    reading = prompt_reading(pipe, part, text.text, longest)
    spans = read_spans(part.name, _tokenizer(part), reading)
    words, end = [], 0
    moved = max(0, text.text.lower().find(reading.prompt.lower()))  # some pipelines strip and write small
    for word in spans.words:
        start = max(reading.prompt.find(word.text, end), end)
        end = start + len(word.text)
        words.append(RulerWord(word.text, word.tokens, 0, text.at(start + moved, end + moved), True))
    cut = [RulerWord(one, range(spans.length, spans.length), 0, 1.0, False) for one in WORD.findall(spans.cut)]
    return Ruler(spans.encoder, spans.length, 1, (*words, *cut), parsed.notes)
