"""Which position of a text encoder holds which word of a prompt: begin, words, end, filling."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.handle import active_handle
from t2i_tools.models import TextEncoder, family, text_encoders

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
HUNYUAN = {"text_encoder": 77, "text_encoder_2": 256}  # its encode_prompt names these lengths itself


class Word(NamedTuple):
    """A word as it stands in the prompt, and its positions."""

    text: str
    tokens: range


@dataclass(frozen=True)
class TokenSpans:
    """The positions of one text encoder's output, in the order in which the denoiser is given them.

    encoder: its name in the pipeline. length: of all positions. bos, eos: what stands before and after the words: the
    special tokens, and the template where a pipeline puts one around the prompt (Lumina2, Qwen-Image, Z-Image).
    pads: the filling, which CogView4 puts first; Z-Image's is a parameter of its denoiser. cut: the end of the prompt
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
    def prompt(self) -> range:
        """Begin, words and end: all that is no filling."""
        return range(self.bos.start, self.eos.stop)


def token_spans(pipe: DiffusionPipeline, prompt: str, *, max_sequence_length: int | None = None) -> list[TokenSpans]:
    """Where each text encoder of a pipeline has begin, words, end and filling of a prompt; no encoder is run.

    max_sequence_length: as in the pipeline's call, for encoders other than CLIP. Raises InputError or
    UnsupportedModelError.
    """
    if not isinstance(prompt, str):
        raise InputError(f"the prompt is a {type(prompt).__name__}: pass one text")
    return [
        read_spans(part.name, part.tokenizer, _reading(pipe, part, prompt, max_sequence_length))
        for part in text_encoders(pipe)
    ]


@dataclass(frozen=True)
class Reading:
    """What a pipeline has a tokenizer read. text: the prompt between `before` and `after`.

    longest: tokens at which it is cut. multiple: the filling goes up to a whole multiple of it, up to `longest` where
    None. left: the filling comes first. dropped: tokens of the template that the denoiser is not given.
    """

    prompt: str
    longest: int
    before: str = ""
    after: str = ""
    multiple: int | None = None
    left: bool = False
    dropped: int = 0


def read_spans(encoder: str, tokenizer: Any, reading: Reading) -> TokenSpans:
    """The spans of a text that a tokenizer reads. Raises UnsupportedModelError."""
    if not getattr(tokenizer, "is_fast", False):
        raise UnsupportedModelError(f"the tokenizer of {encoder} does not tell where in the text a token stands")
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
    end = places[last - 1][1] if held else 0
    return TokenSpans(
        encoder,
        length - reading.dropped,
        _shifted(0, first, shift),
        tuple(_words(reading.prompt, places, first, last, shift)),
        _shifted(last, tokens, shift),
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


def _reading(pipe: DiffusionPipeline, part: TextEncoder, prompt: str, longest: int | None) -> Reading:
    """How a pipeline has one of its tokenizers read a prompt. Raises UnsupportedModelError."""
    kind = getattr(part.encoder.config, "model_type", "")
    if hasattr(pipe, "maybe_convert_prompt"):  # a learned word of several vectors becomes several words
        prompt = pipe.maybe_convert_prompt(prompt, part.tokenizer)
    encode = inspect.signature(pipe.encode_prompt).parameters
    if "clean_caption" in encode:
        prompt = prompt.lower().strip()
    if kind.startswith("clip"):
        if handle := active_handle(part.tokenizer, "long prompts"):  # and not the length that SD3 and Flux ask for
            return Reading(prompt, handle.reader.window([handle.reader.read(prompt)]))
        return Reading(prompt, getattr(pipe, "tokenizer_max_length", part.tokenizer.model_max_length))
    longest = longest or _default_length(pipe)
    match family(pipe):
        case "hunyuandit":
            return Reading(prompt, HUNYUAN[part.name])
        case "lumina":
            return Reading(prompt, pipe.max_sequence_length, multiple=8, left=part.tokenizer.padding_side == "left")
        case "lumina2":
            return Reading(prompt, longest, before=f"{pipe.system_prompt} <Prompt Start> ")
        case "qwenimage":
            before, after = pipe.prompt_template_encode.split("{}")
            dropped = pipe.prompt_template_encode_start_idx
            return Reading(prompt, min(longest, pipe.tokenizer_max_length) + dropped, before, after, 1, dropped=dropped)
        case "z_image":
            before, after = _chat(part.tokenizer, "\0").split("\0")
            return Reading(prompt, longest, before, after, multiple=32)
        case "cogview4":
            return Reading(prompt, longest, multiple=16, left=True)
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


def _chat(tokenizer: Any, content: str) -> str:
    """One turn of a user as Z-Image writes it."""
    message = [{"role": "user", "content": content}]
    return tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True, enable_thinking=True)
