"""Which position of a text encoder holds which word of a prompt: begin, words, end, padding."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.models.anatomy import text_encoders
from t2i_tools.models.families import pipeline_family
from t2i_tools.models.readings import Reading, TextEncoder

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.handle import Handle

READER = "t2i_prompt_reader"  # attribute of a tokenizer
WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


class PromptReader(Protocol):
    """What reads prompts in a tokenizer's place, for as long as a plugin is on."""

    syntax: bool  # whether brackets are weights

    def window_of(self, prompts: Sequence[str]) -> int:
        """How many tokens the windows have in which these prompts are read together."""

    def plain(self, prompt: str) -> str:
        """The words of a prompt, without its syntax."""

    def answer(self, call: Callable[..., Any], text: Any, args: tuple, options: Mapping[str, Any]) -> Any:
        """What the tokenizer, whose own way is `call`, gives for texts."""

    def saved_length(self, asked: int) -> int:
        """The length that the tokenizer is saved with, where it is asked for so many tokens."""


def prompt_reader(tokenizer: Any) -> PromptReader | None:
    """What reads prompts in a tokenizer's place; None where it does so itself."""
    return getattr(tokenizer, READER, None)


def set_prompt_reader(handle: Handle, tokenizer: Any, reader: PromptReader) -> None:
    """Let a reader take a tokenizer's place until the handle ends."""
    setattr(tokenizer, READER, reader)
    handle.on_remove(partial(_forget_reader, tokenizer))


def _forget_reader(tokenizer: Any) -> None:
    vars(tokenizer).pop(READER, None)


class Word(NamedTuple):
    """A word as it stands in the prompt, and its positions."""

    text: str
    tokens: range


@dataclass(frozen=True)
class TokenSpans:
    """The positions of one text encoder's output, in the order in which the denoiser is given them.

    encoder: its name in the pipeline. length: of all positions. bos, eos: what stands before and after the words: the
    special tokens, and the template where a pipeline puts one around the prompt (Lumina2, Qwen-Image, Z-Image).
    pads: the padding, which CogView4 puts first and Krea2 before the template's end; Z-Image's is a parameter of its
    denoiser. cut: the end of the prompt
    that is not read.
    """

    encoder: str
    length: int
    bos: range
    words: tuple[Word, ...]
    eos: range
    pads: range
    cut: str

    @property
    def prompt(self) -> Sequence[int]:
        """Begin, words and end: all that is no padding."""
        whole = range(self.bos.start, self.eos.stop)
        return [place for place in whole if place not in self.pads] if self.pads.start in whole else whole


def token_spans(pipe: DiffusionPipeline, prompt: str, *, max_sequence_length: int | None = None) -> list[TokenSpans]:
    """Tell where each text encoder of a pipeline has begin, words, end and padding of a prompt; no encoder is run.

    Args:
        pipe: A text-to-image pipeline.
        prompt: One prompt, as the pipeline's call takes it.
        max_sequence_length: As in the pipeline's call, for encoders other than CLIP; the call's default when None.

    Returns:
        One `TokenSpans` per text encoder, positions counted from 0.

    Raises:
        InputError: The prompt is no text.
        UnsupportedModelError: It is not known how the pipeline reads a prompt, or a tokenizer does not say where in
            the text its tokens stand.

    Example:
        >>> [word.text for word in t2i.token_spans(pipe, "two cats")[0].words]
        ['two', 'cats']
    """
    if not isinstance(prompt, str):
        raise InputError(f"the prompt is a {type(prompt).__name__}: pass one text")
    spans = []
    for part in text_encoders(pipe):
        reader = prompt_reader(part.tokenizer)
        reading = prompt_reading(pipe, part, reader.plain(prompt) if reader else prompt, max_sequence_length)
        if reader and reader.window_of([prompt]):  # and not the length that SD3 and Flux ask for
            reading = replace(reading, longest=reader.window_of([prompt]))
        spans.append(read_spans(part.name, part.tokenizer, reading))
    return spans


def read_spans(encoder: str, tokenizer: Any, reading: Reading) -> TokenSpans:
    """The spans of a text that a tokenizer reads. Raises UnsupportedModelError."""
    if not getattr(tokenizer, "is_fast", False):
        raise UnsupportedModelError(
            f"the tokenizer of {encoder} does not report where each token stands in the text: load the pipeline with "
            "a fast tokenizer"
        )
    start = len(reading.before)
    read = tokenizer(
        reading.before + reading.prompt + reading.after,
        truncation=True,
        max_length=reading.longest,
        return_offsets_mapping=True,
        verbose=False,
    )
    tokens = len(read["input_ids"])
    places = [(a - start, b - start) for a, b in read["offset_mapping"]]
    held = [i for i, (a, b) in enumerate(places) if a < b and b > 0 and a < len(reading.prompt)]
    first = held[0] if held else _tokens_before(tokenizer, read["input_ids"], places)
    last = held[-1] + 1 if held else first
    length = reading.longest if reading.multiple is None else -(-tokens // reading.multiple) * reading.multiple
    shift = (length - tokens if reading.left else 0) - reading.dropped
    total = length - reading.dropped + reading.tail
    end = places[last - 1][1] if held else 0
    return TokenSpans(
        encoder,
        total,
        _shifted(0, first, shift),
        tuple(_words(reading.prompt, places, first, last, shift)),
        range(total - reading.tail, total) if reading.tail else _shifted(last, tokens, shift),
        range(shift) if reading.left else range(tokens + shift, length + shift),
        reading.prompt[end:].strip() if tokens == reading.longest else "",
    )


def _words(text: str, places: Sequence[tuple[int, int]], first: int, last: int, shift: int):
    """Tokens grouped by the word in which they begin; one that is blank goes to the next word."""
    ends = [match.end() for match in WORD.finditer(text)]

    def word(token: int) -> int:
        begin = max(0, places[token][0])
        begin += len(text[begin:]) - len(text[begin:].lstrip())
        return min(sum(end <= begin for end in ends), len(ends) - 1)

    for _, group in groupby(range(first, last), word):
        tokens = list(group)
        written = text[max(0, places[tokens[0]][0]) : places[tokens[-1]][1]].strip()
        yield Word(written, _shifted(tokens[0], tokens[-1] + 1, shift))


def _tokens_before(tokenizer: Any, ids: Sequence[int], places: Sequence[tuple[int, int]]) -> int:
    """How many tokens stand before an empty prompt: a begin token, or those of a template."""
    before = [i for i, (a, b) in enumerate(places) if a < b <= 0]
    return before[-1] + 1 if before else int(ids[:1] == [tokenizer.bos_token_id])


def _shifted(start: int, stop: int, shift: int) -> range:
    return range(max(0, start + shift), max(0, stop + shift))


def prompt_reading(pipe: DiffusionPipeline, part: TextEncoder, prompt: str, longest: int | None) -> Reading:
    """How a pipeline has one of its tokenizers read a prompt in words.

    Args:
        pipe: The pipeline.
        part: One of its text encoders.
        prompt: A text without syntax.
        longest: max_sequence_length of the call; None for its default.

    Raises:
        UnsupportedModelError: It is not known.
    """
    kind = getattr(part.encoder.config, "model_type", "")
    if hasattr(pipe, "maybe_convert_prompt"):  # a learned word of several vectors becomes several words
        prompt = pipe.maybe_convert_prompt(prompt, part.tokenizer)
    if "clean_caption" in inspect.signature(pipe.encode_prompt).parameters:
        prompt = prompt.lower().strip()
    family, longest = pipeline_family(pipe), longest or _default_length(pipe)
    if family is not None and family.cleans is not None:
        prompt = family.cleans(prompt)
    if kind.startswith("clip"):
        if family is not None and family.clip_reading is not None:
            return family.clip_reading(pipe, part, prompt, longest)
        return Reading(prompt, getattr(pipe, "tokenizer_max_length", part.tokenizer.model_max_length))
    if family is not None and family.reading is not None:
        return family.reading(pipe, part, prompt, longest)
    if kind in ("t5", "mt5", "umt5"):
        return Reading(prompt, longest)
    raise UnsupportedModelError(
        f"{type(pipe).__name__}: it is not known how it has {type(part.encoder).__name__} read a prompt"
    )


def _default_length(pipe: DiffusionPipeline) -> int:
    """The max_sequence_length of the pipeline's call, or of its encode_prompt."""
    for function in (type(pipe).__call__, pipe.encode_prompt):
        parameter = inspect.signature(function).parameters.get("max_sequence_length")
        if parameter is not None and isinstance(parameter.default, int):
            return parameter.default
    return 0
