"""Prompts as the text encoders hand them to the denoiser: encoded, batched, and recognised in a call of it."""

from __future__ import annotations

import inspect
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import torch
from torch.nn.utils.rnn import pad_sequence

from t2i_tools.errors import UnsupportedModelError
from t2i_tools.images.signature import call_default
from t2i_tools.models.anatomy import execution_device, text_encoders
from t2i_tools.models.families import Family, pipeline_family, supported_families
from t2i_tools.models.prompts import prompt_reader, token_spans
from t2i_tools.padding.conditions import Rows, text_rows

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# What encode_prompt calls the prompt, for each text encoder; how it calls the places where texts in a row begin.
TEXTS, LENGTHS = ("prompt", "prompt_2", "prompt_3", "prompt_4"), "cu_seqlens"
Clean: TypeAlias = Literal["empty", "pad", "zeros"]
Pooled: TypeAlias = Literal["full", "clean"]


def known_family(pipe: DiffusionPipeline) -> Family:
    """The record of a pipeline whose encode_prompt is known. Raises UnsupportedModelError."""
    family = pipeline_family(pipe)
    if family is None or not family.returns:
        why = None if family is None else family.refused.get("padding")
        raise UnsupportedModelError(
            f"{type(pipe).__name__}: {why or 'it is not known what its encode_prompt returns'}; "
            f"supported are {', '.join(supported_families('padding'))}"
        )
    return family


def check_supported(family: Family, pipe: DiffusionPipeline) -> None:
    """Raise UnsupportedModelError where no rows of text can be exchanged."""
    if why := family.refused.get("padding"):
        raise UnsupportedModelError(f"{type(pipe).__name__}: {why}")


def encode(pipe: DiffusionPipeline, prompt: str | Mapping[str, str | list[str]], **options: Any) -> dict[str, Any]:
    """What the pipeline's encode_prompt makes of a prompt, by the names of the call; what guides against it apart.

    prompt: a text, or what each argument ("prompt", "prompt_2"...) is given. Raises UnsupportedModelError.
    """
    family = known_family(pipe)
    takes = inspect.signature(pipe.encode_prompt).parameters
    texts = dict.fromkeys(TEXTS, None) | ({"prompt": prompt} if isinstance(prompt, str) else dict(prompt))
    fixed = {"device": execution_device(pipe), "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    usual = getattr(pipe, "default_max_sequence_length", None)  # where the call's own default is none
    fixed["max_sequence_length"] = call_default(pipe, "max_sequence_length") or usual
    made: dict[str, Any] = {}
    for text, own, names in (("prompt", {}, family.returns), *family.further):
        given = {**fixed, **options, **texts, "prompt": texts[text] or texts["prompt"], **own}
        with torch.no_grad():
            values = pipe.encode_prompt(**{name: value for name, value in given.items() if name in takes})
        made |= zip(names, values if isinstance(values, tuple) else (values,), strict=False)
    wanted = inspect.signature(type(pipe).__call__).parameters
    return {n: value for n, value in made.items() if n in wanted and not n.startswith("negative_")}


def text_parts(family: Family, embeds: Mapping[str, Any]) -> list[torch.Tensor]:
    """The text of the first item, (rows, ...) per argument of the call that holds a part of it."""
    return [_first(embeds[name], name in family.layered) for name in family.texts]


def with_parts(family: Family, embeds: Mapping[str, Any], parts: Sequence[torch.Tensor]) -> dict[str, Any]:
    """The embeddings of one item with another text, as `text_parts` gives it."""
    made = dict(embeds)
    for name, part in zip(family.texts, parts, strict=True):
        if isinstance(embeds[name], list):
            made[name] = [part]
        else:
            made[name] = part.movedim(1, 0)[:, None] if name in family.layered else part[None]
    return made


def number_of_items(family: Family, embeds: Mapping[str, Any]) -> int:
    """How many prompts are in a batch of embeddings."""
    value = embeds[family.texts[0]]
    return value.shape[1] if family.texts[0] in family.layered else len(value)


def encode_negative(pipe: DiffusionPipeline, prompt: str, **options: Any) -> dict[str, Any]:
    """What the pipeline makes of a negative prompt, by the names of its call."""
    wanted = inspect.signature(type(pipe).__call__).parameters
    values = {f"negative_{name}": value for name, value in encode(pipe, prompt, **options).items()}
    return {name: value for name, value in values.items() if name in wanted}


def encode_clean(pipe: DiffusionPipeline, prompt: str, clean: Clean, **options: Any) -> dict[str, Any]:
    """The embeddings of the clean prompt, as long as those of the prompt."""
    family, texts = known_family(pipe), clean_texts(pipe, prompt, clean, options.get("max_sequence_length"))
    parts = [part for part in text_encoders(pipe) if not family.pooled_only(part.name)]
    readers = filter(None, (prompt_reader(part.tokenizer) for part in parts))
    if not family.unpadded and any(reader.window_of([prompt]) for reader in readers):  # as long as its batch needs
        both = encode(pipe, {name: [prompt, text] for name, text in texts.items()}, **options)
        embeds = {name: value[:, 1:] if name in family.layered else value[1:] for name, value in both.items()}
    else:
        embeds = encode(pipe, texts, **options)
    if clean == "zeros":
        embeds |= {name: _zeros(embeds[name]) for name in (*family.texts, family.pooled) if name in embeds}
    return embeds


def clean_texts(
    pipe: DiffusionPipeline, prompt: str, clean: Clean, max_sequence_length: int | None = None
) -> dict[str, str]:
    """The text that says nothing, for each text argument of encode_prompt."""
    family = known_family(pipe)
    unpadded = family.unpadded
    if clean != "pad" and not unpadded:
        return dict.fromkeys(TEXTS, "")
    texts = {}
    for part, spans in zip(
        text_encoders(pipe), token_spans(pipe, prompt, max_sequence_length=max_sequence_length), strict=True
    ):
        if unpadded and family.pooled_only(part.name):
            continue
        name = part.name.replace("text_encoder", "prompt")
        number = (spans.length if not unpadded else len(spans.prompt)) - len(spans.bos) - len(spans.eos)
        texts[name] = part.tokenizer.pad_token * number
        if unpadded:
            # A word may share its first token with the template's last: then one pad is too many.
            every = token_spans(pipe, texts[name], max_sequence_length=max_sequence_length)
            read = next(one for one in every if one.encoder == part.name)
            texts[name] = part.tokenizer.pad_token * (number - (len(read.prompt) - len(spans.prompt)))
    texts.setdefault("prompt", "")
    return texts


def check_windows(pipe: DiffusionPipeline, prompts: Sequence[str]) -> None:
    """Raises UnsupportedModelError for prompts that long_prompts reads in windows of different lengths."""
    readers = [reader for part in text_encoders(pipe) if (reader := prompt_reader(part.tokenizer))]
    for reader in readers:
        if len({reader.window_of([prompt]) for prompt in prompts}) > 1:
            raise UnsupportedModelError(
                "some prompts of this batch fit in a window of 77 tokens and others do not: split it into two batches"
            )


def fitted(rows: Rows, length: int) -> Rows:
    """The rows that the encoder gives. Raises UnsupportedModelError where the tokenizer speaks of other ones."""
    if length < len(rows) and not rows.prompt[length:].any() and not rows.pads[:length].any():
        return Rows(rows.prompt[:length], rows.eos[:length], rows.pads[:length])  # Z-Image pads in the denoiser
    if length != len(rows):
        raise UnsupportedModelError(
            f"the tokenizers give {len(rows)} rows of text and the encoders {length}: "
            "remove plugins that change how prompts are read"
        )
    return rows


def joined(made: Sequence[Mapping[str, Any]], layered: Container[str] = ()) -> dict[str, Any]:
    """The embeddings of prompts as one batch, the shorter ones padded with what is masked (Qwen-Image).

    layered: the names of those whose batch comes second.
    """
    joined: dict[str, Any] = {}
    for name in made[0]:
        values = [one[name] for one in made]
        if isinstance(values[0], list):
            joined[name] = [row for value in values for row in value]
        elif name in layered:
            joined[name] = torch.cat(values, dim=1)
        elif name.endswith(LENGTHS):
            joined[name] = _lengths_summed(torch.cat([value.diff() for value in values]))
        elif name == "prompt_embeds_mask":
            texts = [one["prompt_embeds"] for one in made]
            whole = [text.new_ones(text.shape[1], dtype=torch.long) for text in texts]
            masks = [one if value is None else value[0] for one, value in zip(whole, values, strict=True)]
            is_plain = all(value is None for value in values) and len({len(one) for one in whole}) == 1
            joined[name] = None if is_plain else pad_sequence(masks, batch_first=True)
        else:
            joined[name] = pad_sequence([value[0] for value in values], batch_first=True)
    return {name: value for name, value in joined.items() if value is not None}


def repeated(name: str, values: Any, images: int, layered: Container[str] = ()) -> Any:
    """A batch with each item so many times over; what is no batch as it is."""
    if isinstance(values, torch.Tensor):
        if name.endswith(LENGTHS):
            return _lengths_summed(values.diff().repeat_interleave(images))
        return values.repeat_interleave(images, dim=1 if name in layered else 0)
    return [value for value in values for _ in range(images)] if isinstance(values, list) else values


def pad_kinds(pipe: DiffusionPipeline) -> dict[str, str]:
    """What the padding that a denoiser is given consists of, by text encoder: "end token", "pad token" or "learned"."""
    family = known_family(pipe)
    if family.masking is not None and family.masking.block_argument is not None:
        return {"denoiser": "learned"}
    return {
        part.name: "end token" if part.tokenizer.pad_token_id == part.tokenizer.eos_token_id else "pad token"
        for part in text_encoders(pipe)
        if not family.pooled_only(part.name)
    }


@dataclass(frozen=True)
class KnownText:
    """A prompt as the denoiser is given it. text: (L, d), the first part of it. more: the others. rows: of all."""

    text: torch.Tensor
    rows: Rows
    more: tuple[torch.Tensor, ...] = field(default=(), kw_only=True)

    @property
    def parts(self) -> list[torch.Tensor]:
        """All parts of the text."""
        return [self.text, *self.more]


Known = TypeVar("Known", bound=KnownText)


def known_texts(pipe: DiffusionPipeline, prompts: Sequence[str], reading: Mapping[str, Any]) -> list[KnownText]:
    """What the denoiser will be given for prompts. Raises InputError or UnsupportedModelError."""
    length, known = reading.get("max_sequence_length"), []
    for prompt in dict.fromkeys(prompts):
        text, *more = text_parts(known_family(pipe), encode(pipe, prompt, **reading))
        rows = text_rows(pipe, prompt, max_sequence_length=length)
        fitted(rows, len(text) + sum(map(len, more)))
        known.append(KnownText(text, rows, more=tuple(more)))
    return known


def recognise(text: torch.Tensor, known: Sequence[Known]) -> Known | None:
    """Which of the known texts a denoiser was given, up to rounding, shorter ones padded in a batch; or none."""
    return next((one for one in known if is_same_text(text[: len(one.text)], one.text.to(text))), None)


def is_same_text(text: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two texts, (L, d) each, are equal up to rounding, which depends on the batch."""
    if text.shape != other.shape:
        return False
    rounding = max(1e-3, 4 * torch.finfo(text.dtype).eps)  # of a whole row
    own, alone = text.float().flatten(1), other.float().flatten(1)
    return bool(((own - alone).norm(dim=1) <= rounding * alone.norm(dim=1)).all())


def _first(value: Any, layered: bool) -> torch.Tensor:
    """The text of the first item, (rows, ...): of texts as a list, (B, rows, ...) or (layers, B, rows, d)."""
    return value[:, 0].movedim(0, 1) if layered else value[0]


def _lengths_summed(lengths: torch.Tensor) -> torch.Tensor:
    """Where each of texts in a row begins, and where the last one ends."""
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)


def _zeros(value: Any) -> Any:
    return [torch.zeros_like(one) for one in value] if isinstance(value, list) else torch.zeros_like(value)
