"""Which rows of text a condition keeps: the others are replaced by those of a clean prompt, which says nothing.

What a row stands for is read from the tokenizer, never from a constant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from t2i_tools.errors import InputError
from t2i_tools.images.signature import call_default
from t2i_tools.models.families import pipeline_family
from t2i_tools.models.prompts import TokenSpans, token_spans

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Condition: TypeAlias = str | tuple | slice
NAMES = ("full", "prompt", "pads", "clean", "eos", "swapped", "noise")
HELP = f'{", ".join(NAMES)}, ("pads", i, n) with i from 0, ("random", n, seed) or a slice of rows'


@dataclass(frozen=True)
class Rows:
    """What each row of the text that a denoiser is given stands for: (L,) bool each.

    prompt: begin, words and end, all that is no padding. eos: the end alone. pads: the padding.
    """

    prompt: np.ndarray
    eos: np.ndarray
    pads: np.ndarray

    def __len__(self) -> int:
        return len(self.prompt)

    def to_length(self, length: int) -> Rows:
        """With rows appended that stand for nothing."""
        return Rows(*(np.pad(part, (0, length - len(self))) for part in (self.prompt, self.eos, self.pads)))


def text_rows(pipe: DiffusionPipeline, prompt: str, *, max_sequence_length: int | None = None) -> Rows:
    """The rows of text of a pipeline's denoiser for a prompt. Raises InputError or UnsupportedModelError."""
    spans = {one.encoder: one for one in token_spans(pipe, prompt, max_sequence_length=max_sequence_length)}
    return rows_of_spans(pipe, spans, max_sequence_length)


def rows_of_spans(pipe: DiffusionPipeline, spans: Mapping[str, TokenSpans], max_sequence_length: int | None) -> Rows:
    """The rows of text of a pipeline's denoiser, from those of each text encoder."""
    family = pipeline_family(pipe)
    segments = family.segments if family and family.segments else (tuple(spans),)
    parts = [_segment([spans[name] for name in names if name in spans]) for names in segments]
    rows = Rows(*(np.concatenate(columns) for columns in zip(*(part for part in parts if part), strict=True)))
    if family and any(name not in spans for name in family.absent):  # zeros in their place
        zeros = max_sequence_length or call_default(pipe, "max_sequence_length")
        return Rows(
            *(np.pad(p, (0, zeros), constant_values=p is rows.pads) for p in (rows.prompt, rows.eos, rows.pads))
        )
    return rows


def rows_in_blocks(pipe: DiffusionPipeline, length: int, max_sequence_length: int | None) -> np.ndarray:
    """Which of the rows of text each row is that the denoiser's blocks have, some of which they have twice."""
    family = pipeline_family(pipe)
    if family is None or family.in_blocks is None or family.segments is None:
        return np.arange(length)
    lengths = {one.encoder: one.length for one in token_spans(pipe, "", max_sequence_length=max_sequence_length)}
    sizes = [next(lengths[name] for name in names if name in lengths) for names in family.segments]
    starts = np.cumsum([0, *sizes])
    return np.concatenate([np.arange(starts[i], starts[i + 1]) for i in family.in_blocks])


def kept_rows(condition: Condition, rows: Rows) -> np.ndarray:
    """(L,) bool: the rows that a condition keeps. Raises InputError."""
    match check_condition(condition):
        case "full":
            return np.ones(len(rows), dtype=bool)
        case "prompt":
            return rows.prompt.copy()
        case "pads":
            return rows.pads.copy()
        case "eos":
            return rows.eos.copy()
        case ("pads", part, parts):
            return _only(np.array_split(np.flatnonzero(rows.pads), parts)[part], len(rows))
        case ("random", number, seed):
            pads = np.flatnonzero(rows.pads)
            return _only(np.random.default_rng(seed).permutation(pads)[:number], len(rows))
        case slice() as cut:
            return _only(np.arange(len(rows))[cut], len(rows))
    return np.zeros(len(rows), dtype=bool)


def swapped_rows(rows: Rows, other: Rows) -> np.ndarray:
    """(L,) bool: the rows that are padding for both prompts, for the longer one must not lend its words."""
    length = min(len(rows), len(other))
    return np.pad(rows.pads[:length] & other.pads[:length], (0, len(rows) - length))


def check_condition(condition: Condition) -> Condition:
    """The condition, if it is one. Raises InputError."""
    match condition:
        case str() if condition in NAMES:
            return condition
        case ("pads", int(part), int(parts)) if 0 <= part < parts:
            return condition
        case ("random", int(number), int(seed)) if number > 0 and seed >= 0:
            return condition
        case slice():
            return condition
    raise InputError(f"unknown condition {condition!r}: choose {HELP}")


def condition_name(condition: Condition) -> str:
    """A condition in words: "pads 1 of 5", "random 10", "rows 0:5"."""
    match check_condition(condition):
        case ("pads", part, parts):
            return f"pads {part + 1} of {parts}"
        case ("random", number, seed):
            return f"random {number}" + (f" seed {seed}" if seed else "")
        case slice() as cut:
            return "rows " + ":".join("" if end is None else str(end) for end in (cut.start, cut.stop))
    return str(condition)


def parse_condition(text: str) -> Condition:
    """A condition as it is typed: "prompt", "pads:1/5" (first of five), "random:10", "rows:0-5". Raises InputError."""
    if found := re.fullmatch(r"pads:(\d+)/(\d+)", text):
        return check_condition(("pads", int(found[1]) - 1, int(found[2])))
    if found := re.fullmatch(r"random:(\d+)(?::(\d+))?", text):
        return check_condition(("random", int(found[1]), int(found[2] or 0)))
    if found := re.fullmatch(r"rows:(\d*)-(\d*)", text):
        return slice(*(int(end) if end else None for end in found.groups()))
    if text not in NAMES:
        raise InputError(f"unknown condition {text!r}: choose {', '.join(NAMES)}, pads:1/5, random:10 or rows:0-5")
    return text


def _segment(spans: Sequence[TokenSpans]) -> tuple[np.ndarray, ...]:
    """prompt, eos and pads of encoders that share rows; a row is padding if it is so for all of them."""
    if not spans:
        return ()
    length = spans[0].length
    prompt = np.any([_only(one.prompt, length) for one in spans], axis=0)
    return prompt, np.any([_only(one.eos, length) for one in spans], axis=0), ~prompt


def _only(places: Sequence[int] | np.ndarray, length: int) -> np.ndarray:
    mask = np.zeros(length, dtype=bool)
    mask[list(places)] = True
    return mask
