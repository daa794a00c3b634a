"""Long prompts for a pipeline: its tokenizers lay the prompt out in windows, its text encoders join what they make."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING, TypeAlias, get_args

from torch import nn

from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.handle import Handle, active_handle
from t2i_tools.longclip.checkpoint import load_long_clip
from t2i_tools.longclip.hooks import PLUGIN, WindowedEncoder, attach_reader
from t2i_tools.longclip.reader import READINGS, Method, Reader
from t2i_tools.longclip.stretch import STOCK, positions, set_attribute, stock_rows, stretch_clip
from t2i_tools.longclip.weighted import TextReader, WeightedEncoder
from t2i_tools.longclip.weights import describe_size, same_size, take_over_weights
from t2i_tools.longclip.windows import Split
from t2i_tools.models.anatomy import TextEncoder, text_encoders
from t2i_tools.models.families import pipeline_family
from t2i_tools.models.prompts import prompt_reading

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import DiffusionPipeline
    from transformers import PreTrainedModel

Weights: TypeAlias = "str | Path | PreTrainedModel"


def long_prompts(
    pipe: DiffusionPipeline,
    method: Method | None = None,
    *,
    weights: Weights | Mapping[str, Weights] | None = None,
    syntax: bool = True,
    split: Split = "words",
) -> Handle:
    """Let the CLIP text encoders of a pipeline read prompts and negative prompts of any length.

    The pooled vector is the first window's. Where the denoiser is given nothing else of an encoder (Flux's CLIP), the
    other windows are cut, which ruler, report and a warning say. Encoders other than CLIP keep their length. A prompt
    that 77 tokens hold stays in a window of 77 and, where it has no brackets or `syntax` is off, equals the plain
    pipeline's to the bit if all prompts of the call are as short, the negative ones too; beside longer ones it gets
    empty windows, and another image. What is saved while "stretch" is on has its 248 positions, and plain diffusers
    draws another image of a short prompt with it: remove the handle before `save_pretrained`, unless that is meant.

    Args:
        pipe: A pipeline of diffusers.
        method: "chunk" reads windows of 77 tokens one by one, as many as the longest prompt of the call needs, and
            joins their hidden states. "stretch" makes the windows 248 long (`stretch_clip`). "truncate" cuts as the
            plain pipeline does, and says what. None (the default) is "stretch" with `weights`, else "chunk": stretched
            positions that no training has seen read worse than windows do (docs/guides/long_prompts.md).
        weights: A Long-CLIP for "stretch", as `load_long_clip` reads or returns it, which every text encoder that it
            fits takes over, or {"text_encoder": ...}; the others are stretched as they are.
        syntax: Read "(word:1.3)", "(word)", "[word]" as weights and BREAK as the beginning of a new window, as
            AUTOMATIC1111 does, on every text encoder, T5 and language models too (there BREAK is a blank); True by
            default. A weight w turns the hidden state z of a token into e + w (z - e), e being that of an empty prompt
            at the same place, as in ComfyUI: 0 is the word unsaid. A pooled vector that goes alone is weighed against
            the one without the words.
        split: What goes whole into one window if it fits in one, "words" (the default) or "sentences". Sentences make
            windows emptier, and more of them.

    Returns:
        A handle; text encoders and tokenizers are edited until its `remove()`, and its `report()` describes the longest
        prompt that each of them has read.

    Raises:
        UnsupportedModelError: No text encoder can be lengthened or read the syntax.
        ModelError: The weights cannot be opened.
        InputError: An argument is out of range.

    Source: Zhang et al. 2024, arXiv 2403.15378, for "stretch"; AUTOMATIC1111 for "chunk".

    Example:
        >>> with t2i.long_prompts(pipe, "chunk"):
        ...     image = pipe("a (red:1.2) apple, " * 40).images[0]
    """
    if method is None:
        method = "chunk" if weights is None else "stretch"
    check_method(method, weights)
    if split not in get_args(Split):
        raise InputError(f"unknown split {split!r}: choose {', '.join(get_args(Split))}")
    others = other_encoders(pipe) if syntax else []
    parts = clip_encoders(pipe, needed=not others or weights is not None)
    windowed: dict[int, Reader] = {}
    tuned = find_weights(parts, weights)
    for part in (*parts, *others):
        if earlier := active_handle(part.encoder, PLUGIN):
            earlier.remove()
    for part in parts:  # two text encoders may share a tokenizer
        windowed.setdefault(id(part.tokenizer), window_reader(pipe, part, method, syntax, split=split))
    weighted = {id(part.tokenizer): text_reader(pipe, part) for part in others}
    readers: list[Reader | TextReader] = [*windowed.values(), *weighted.values()]
    rows = partial(map, methodcaller("row"), readers)
    handles = [Handle(part.encoder, PLUGIN, rows) for part in (*parts, *others)]
    for handle in handles[1:]:
        handles[0].on_remove(handle.remove)
    try:
        for handle, part in zip(handles[len(parts) :], others, strict=True):
            WeightedEncoder(weighted[id(part.tokenizer)]).attach(handle, part.encoder)
        for handle, part in zip(handles, parts, strict=False):
            short = None
            if part.name in tuned:
                take_over_weights(handle, part.encoder, tuned[part.name])
            elif method == "stretch" and positions(part.encoder) == STOCK:
                handle.on_remove(stretch_clip(part.encoder, part.tokenizer).remove)
                set_attribute(handle, part.tokenizer, "model_max_length", STOCK)  # longer prompts ask for more
                short = stock_rows(STOCK)
            WindowedEncoder(windowed[id(part.tokenizer)], short).attach(handle, part.encoder)
        for reader in readers:
            handles[0].on_remove(attach_reader(reader).remove)
        _check_lengths(parts)
    except BaseException:
        handles[0].remove()
        raise
    return handles[0]


def check_method(method: str, weights: object = None) -> None:
    """Raises InputError for an unknown method, and for weights that do not go with it."""
    if method not in READINGS:
        raise InputError(f"unknown method {method!r} for long prompts: choose {', '.join(READINGS)}")
    if weights is not None and method != "stretch":
        raise InputError(f"weights of a Long-CLIP go with method 'stretch', not {method!r}")


def is_clip(part: TextEncoder) -> bool:
    """Whether it reads a fixed number of positions, as CLIP does."""
    return part.tokenizer is not None and str(part.encoder.config.model_type).startswith("clip")


def other_encoders(pipe: DiffusionPipeline) -> list[TextEncoder]:
    """A pipeline's text encoders that are no CLIP."""
    return [part for part in text_encoders(pipe) if part.tokenizer is not None and not is_clip(part)]


def window_reader(
    pipe: DiffusionPipeline,
    part: TextEncoder,
    method: Method,
    syntax: bool,
    length: int | None = None,
    split: Split = "words",
) -> Reader:
    """The reader of a CLIP text encoder."""
    family = pipeline_family(pipe)
    pooled = family is not None and family.pooled_only(part.name)
    fixed = None
    if family is not None and family.clip_reading is not None and positions(part.encoder) > STOCK:
        fixed = min(prompt_reading(pipe, part, "", None).longest, positions(part.encoder))
    return Reader(part.name, part.encoder, part.tokenizer, method, syntax, length, pooled, split, fixed)


def text_reader(pipe: DiffusionPipeline, part: TextEncoder) -> TextReader:
    """The reader of another text encoder. Raises UnsupportedModelError where it cannot be given weights."""
    family = pipeline_family(pipe)
    if family is not None and (why := family.refused.get("syntax")):
        raise UnsupportedModelError(f"{type(pipe).__name__} cannot weight words: {why}")
    reading = prompt_reading(pipe, part, "", None)
    most = reading.longest if reading.dropped else None  # a tokenizer with a template is given room for more
    return TextReader(part.name, part.encoder, part.tokenizer, reading.before, reading.after, reading.left, most)


def clip_encoders(pipe: DiffusionPipeline, needed: bool = True) -> list[TextEncoder]:
    """A pipeline's text encoders that are CLIP. Raises UnsupportedModelError when one is needed and there is none."""
    found = list(filter(is_clip, text_encoders(pipe)))
    if needed and not found:
        raise UnsupportedModelError(f"{type(pipe).__name__} has no CLIP text encoder whose prompts need lengthening")
    return found


def find_weights(
    parts: list[TextEncoder], weights: Weights | Mapping[str, Weights] | None
) -> dict[str, PreTrainedModel]:
    """The Long-CLIP of each text encoder that takes one. Raises UnsupportedModelError, ModelError or InputError."""
    if isinstance(weights, Mapping):
        if unknown := weights.keys() - {part.name for part in parts}:
            raise InputError(
                f"weights for {sorted(unknown)[0]!r}: the pipeline's are {', '.join(p.name for p in parts)}"
            )
        return {name: _opened(source) for name, source in weights.items()}
    if weights is None:
        return {}
    model = _opened(weights)
    found = {part.name: model for part in parts if same_size(part.encoder, model)}
    if not found:
        sizes = ", ".join(describe_size(part.encoder) for part in parts)
        raise UnsupportedModelError(f"the weights are of {describe_size(model)}, the pipeline's of {sizes}")
    return found


def _opened(weights: Weights) -> PreTrainedModel:
    if not isinstance(weights, nn.Module):
        return load_long_clip(weights)
    if positions(weights) <= STOCK:
        raise UnsupportedModelError(
            f"weights has {positions(weights)} positions: it is a plain CLIP, not a stretched one"
        )
    return weights


def _check_lengths(parts: list[TextEncoder]) -> None:
    """The hidden states of several text encoders are joined row by row. Raises InputError."""
    lengths = {part.name: positions(part.encoder) for part in parts}
    if len(set(lengths.values())) > 1:
        listed = " and ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(f"the text encoders read windows of different lengths, {listed} tokens: use method 'stretch'")
