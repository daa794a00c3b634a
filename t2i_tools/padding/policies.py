"""What a padding policy makes of a prompt: the text that the denoiser is given, and which of its rows it sees.

none      every row, the padding too
mask      the prompt's rows; attention hides the padding
keep-one  the prompt's rows and the first of the padding, as Chroma was trained
trim      as mask, and the text encoder reads the prompt without padding too
filler    every row, of the prompt with commas in the place of the padding
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import torch

from t2i_tools.models.anatomy import text_encoders
from t2i_tools.models.families import Family
from t2i_tools.models.prompts import TokenSpans, token_spans
from t2i_tools.padding.conditions import Rows, rows_of_spans, text_rows
from t2i_tools.padding.encoding import TEXTS, KnownText, encode, fitted, known_family, known_texts, text_parts

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Policy: TypeAlias = Literal["none", "mask", "trim", "keep-one", "filler"]
Parts: TypeAlias = Sequence[torch.Tensor]
FILLER = ","
TRAINED = "as trained"


@dataclass(frozen=True)
class PolicyText(KnownText):
    """A prompt, as the pipeline encodes it and as a policy wants it.

    given: (L, d) each, what the denoiser is given instead of the parts of the text. seen: (L,) bool, which of these
    rows, and of the padding that the denoiser itself adds, it sees.
    """

    given: Sequence[torch.Tensor]
    seen: np.ndarray


def refusal(family: Family, policy: Policy) -> str | None:
    """Why a family cannot follow a policy; None where it can. For families with padding policies."""
    assert family.masking is not None
    return family.masking.refused.get(policy)


def possible_policies(family: Family) -> tuple[Policy, ...]:
    """The policies that a family can follow, but for the one it follows as it comes."""
    if family.masking is None:
        return ()
    every: tuple[Policy, ...] = get_args(Policy)
    return tuple(one for one in every if one != family.masking.trained and refusal(family, one) is None)


def policy_texts(
    pipe: DiffusionPipeline, policy: Policy, prompts: list[str], reading: Mapping[str, Any]
) -> list[PolicyText]:
    """What a policy makes of each prompt. Raises InputError or UnsupportedModelError."""
    change = {"trim": _trimmed, "filler": _filled}.get(policy, _as_encoded)
    made = []
    for prompt, known in zip(dict.fromkeys(prompts), known_texts(pipe, prompts, reading), strict=True):
        text, rows = change(pipe, prompt, known, reading)
        made.append(PolicyText(known.text, known.rows, text, seen_rows(policy, rows), more=known.more))
    return made


def seen_rows(policy: Policy, rows: Rows) -> np.ndarray:
    """(L,) bool: the rows that a denoiser sees."""
    if policy == "none":
        return rows.prompt | rows.pads
    seen = rows.prompt.copy()
    if policy == "keep-one":
        seen[np.flatnonzero(rows.pads)[:1]] = True
    return seen


def _as_encoded(pipe: Any, prompt: str, known: KnownText, reading: Mapping[str, Any]) -> tuple[Parts, Rows]:
    return known.parts, known.rows


def _trimmed(pipe: Any, prompt: str, known: KnownText, reading: Mapping[str, Any]) -> tuple[Parts, Rows]:
    """The prompt's rows, encoded at its own length; CLIP's are the same, since it is causal and its padding last."""
    family = known_family(pipe)
    every = token_spans(pipe, prompt, max_sequence_length=reading.get("max_sequence_length"))
    lengths = [
        len(spans.prompt) for spans in every if not _reads_clip(pipe, spans) and not family.pooled_only(spans.encoder)
    ]
    if not lengths:
        return known.parts, known.rows
    short = {**reading, "max_sequence_length": max(lengths)}
    texts = text_parts(family, encode(pipe, prompt, **short))
    rows = fitted(text_rows(pipe, prompt, max_sequence_length=max(lengths)), sum(map(len, texts)))
    given, starts = [], [0, 0]
    for whole, text in zip(known.parts, texts, strict=True):
        own, read = known.rows.prompt[starts[0] :][: len(whole)], rows.prompt[starts[1] :][: len(text)]
        part = whole.clone()
        part[torch.from_numpy(own)] = text[torch.from_numpy(read)].to(part)
        given.append(part)
        starts = [starts[0] + len(whole), starts[1] + len(text)]
    return given, known.rows


def _reads_clip(pipe: Any, spans: TokenSpans) -> bool:
    config = getattr(pipe, spans.encoder).config
    return getattr(config, "model_type", "").startswith("clip")


def _filled(pipe: Any, prompt: str, known: KnownText, reading: Mapping[str, Any]) -> tuple[Parts, Rows]:
    """The prompt with as many commas as its padding has room for, in each encoder."""
    length = reading.get("max_sequence_length")
    texts: dict[str, str] = dict.fromkeys(TEXTS, prompt)
    spans: dict[str, TokenSpans] = {}
    for part in text_encoders(pipe):
        argument = part.name.replace("text_encoder", "prompt")
        texts[argument], spans[part.name] = _with_filler(pipe, part.name, prompt, length)
    parts = text_parts(known_family(pipe), encode(pipe, texts, **reading))
    return parts, rows_of_spans(pipe, spans, length)


def _with_filler(pipe: Any, encoder: str, prompt: str, length: int | None) -> tuple[str, TokenSpans]:
    """The prompt and the most commas with which its encoder needs no further row."""

    def read(number: int) -> tuple[str, TokenSpans]:
        text = " ".join([prompt, *[FILLER] * number]).strip()
        every = token_spans(pipe, text, max_sequence_length=length)
        return text, next(one for one in every if one.encoder == encoder)

    plain, one, two = (read(number)[1] for number in range(3))
    if not plain.pads or one.length != plain.length or one.cut:
        return read(0)
    each = len(two.prompt) - len(one.prompt)  # tokens; the first comma may share one with what stands before it
    return read(1 + len(one.pads) // each if len(one.pads) > each > 0 else 1)
