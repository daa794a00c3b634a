"""Interventions in what the text encoders hand to the denoiser (Toker et al. 2025, section 3.1):

E' = rows of E_full where a condition keeps them, of E_clean elsewhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from t2i_tools.errors import InputError, UnsupportedModelError
from t2i_tools.generation import call_default
from t2i_tools.handle import active_handle
from t2i_tools.models import execution_device, family, text_encoders
from t2i_tools.padding.keeps import Keep, Rows, check_keep, own_rows, swapped_rows, text_rows
from t2i_tools.prompts import token_spans

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Clean: TypeAlias = Literal["empty", "pad", "zeros"]
Pooled: TypeAlias = Literal["full", "clean"]
MASKED = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
POOLED = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
# What encode_prompt of each family returns, by the names that the call takes.
RETURNS = {
    "aura_flow": MASKED,
    "chroma": ("prompt_embeds", "text_ids", "prompt_attention_mask"),
    "cogview4": ("prompt_embeds", "negative_prompt_embeds"),
    "flux": ("prompt_embeds", "pooled_prompt_embeds", "text_ids"),
    "lumina2": MASKED,
    "pixart_alpha": MASKED,
    "qwenimage": ("prompt_embeds", "prompt_embeds_mask"),
    "stable_diffusion": ("prompt_embeds", "negative_prompt_embeds"),
    "stable_diffusion_3": POOLED,
    "stable_diffusion_xl": POOLED,
    "z_image": ("prompt_embeds", "negative_prompt_embeds"),
}
# The denoiser of these never sees the filling, or sees as much of it as the prompt leaves: an empty prompt would be
# shorter, so theirs is filled up with pad tokens in the place of the words.
UNFILLED = ("cogview4", "lumina2", "qwenimage", "z_image")
MASKS_PADS = ("lumina2", "pixart_alpha", "qwenimage")


def encoder_intervention(
    pipe: DiffusionPipeline,
    prompt: str | Sequence[str],
    keep: Keep,
    *,
    clean: Clean = "empty",
    pooled: Pooled = "full",
    other: str | None = None,
    num_images_per_prompt: int = 1,
    **options: Any,
) -> dict[str, Any]:
    """Text embeddings of which a condition's rows are the prompt's, the rest a clean prompt's (Toker et al. 2025).

    Returns keyword arguments of the pipeline's call, to be passed in the place of `prompt` and num_images_per_prompt.

    prompt: one or several. keep: "full", "prompt" (begin, words and end), "pads", "clean", "eos", ("pads", i, n) for
    the i-th of n parts from 0, ("random", n, seed) for n pads drawn at random, a slice of rows; as controls "swapped",
    the pads of `other` instead of the prompt's, and "noise", of the norm of each pad. clean: "empty" is the empty
    prompt as the pipeline fills it up (where it fills up nothing, pad tokens instead of the words), "pad" pad tokens
    throughout, "zeros" zeros. pooled: whose the pooled vector is. The attention mask stays the prompt's.
    options: arguments of encode_prompt such as max_sequence_length or clip_skip.
    Raises InputError or UnsupportedModelError.
    """
    check_options(keep, clean, pooled, other)
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise InputError("there is no prompt")
    check_windows(pipe, prompts)
    made = joined([_intervened(pipe, one, keep, clean, pooled, other, options) for one in prompts])
    return {name: repeated(value, num_images_per_prompt) for name, value in made.items()}


def encode(pipe: DiffusionPipeline, prompt: str | Mapping[str, str | list[str]], **options: Any) -> dict[str, Any]:
    """What the pipeline's encode_prompt makes of a prompt, by the names of the call; what guides against it apart.

    prompt: a text, or what each argument ("prompt", "prompt_2"...) is given. Raises UnsupportedModelError.
    """
    names = RETURNS.get(family(pipe))
    if names is None:
        raise UnsupportedModelError(
            f"{type(pipe).__name__}: it is not known what its encode_prompt returns; supported are {', '.join(RETURNS)}"
        )
    takes = inspect.signature(pipe.encode_prompt).parameters
    texts = {"prompt": prompt, "prompt_2": None, "prompt_3": None} if isinstance(prompt, str) else prompt
    fixed = {"device": execution_device(pipe), "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    fixed["max_sequence_length"] = call_default(pipe, "max_sequence_length")
    given = {name: value for name, value in (fixed | options | dict(texts)).items() if name in takes}
    with torch.no_grad():
        values = pipe.encode_prompt(**given)
    wanted = inspect.signature(type(pipe).__call__).parameters
    return {n: v for n, v in zip(names, values, strict=False) if n in wanted and not n.startswith("negative_")}


def encode_clean(pipe: DiffusionPipeline, prompt: str, clean: Clean, **options: Any) -> dict[str, Any]:
    """The embeddings of the clean prompt, as long as those of the prompt."""
    texts = clean_texts(pipe, prompt, clean, options.get("max_sequence_length"))
    if any(active_handle(part.tokenizer, "long prompts") for part in text_encoders(pipe)):  # as long as its batch needs
        both = encode(pipe, {name: [prompt, text] for name, text in texts.items()}, **options)
        embeds = {name: value[1:] for name, value in both.items()}
    else:
        embeds = encode(pipe, texts, **options)
    if clean == "zeros":
        embeds |= {name: _zeros(value) for name, value in embeds.items() if name.endswith("_embeds")}
    return embeds


def clean_texts(
    pipe: DiffusionPipeline, prompt: str, clean: Clean, max_sequence_length: int | None = None
) -> dict[str, str]:
    """The text that says nothing, for each text argument of encode_prompt."""
    unfilled = family(pipe) in UNFILLED
    if clean != "pad" and not unfilled:
        return {"prompt": "", "prompt_2": "", "prompt_3": ""}
    texts = {}
    for part, spans in zip(
        text_encoders(pipe), token_spans(pipe, prompt, max_sequence_length=max_sequence_length), strict=True
    ):
        name = part.name.replace("text_encoder", "prompt")
        number = (spans.length if not unfilled else len(spans.prompt)) - len(spans.bos) - len(spans.eos)
        texts[name] = part.tokenizer.pad_token * number
        if unfilled:
            # A word may share its first token with the template's last: then one pad is too many.
            (read,) = token_spans(pipe, texts[name], max_sequence_length=max_sequence_length)
            texts[name] = part.tokenizer.pad_token * (number - (len(read.prompt) - len(spans.prompt)))
    texts.setdefault("prompt", "")
    return texts


def check_options(keep: Keep, clean: str, pooled: str, other: str | None) -> None:
    """Raise InputError for what is no condition, or lacks the other prompt."""
    check_keep(keep)
    if clean not in ("empty", "pad", "zeros"):
        raise InputError(f'clean is "empty", "pad" or "zeros", not {clean!r}')
    if pooled not in ("full", "clean"):
        raise InputError(f'pooled is "full" or "clean", not {pooled!r}')
    if keep == "swapped" and other is None:
        raise InputError('the condition "swapped" takes the pads of another prompt: pass other="..."')


def directions(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    """(L, d) Gaussian rows of length 1: noise that takes on the norm of the row in whose place it comes."""
    noise = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return noise / noise.norm(dim=-1, keepdim=True)


def as_mask(rows: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """(L,) bool as (L, 1) on the device of a tensor."""
    return torch.from_numpy(rows).to(like.device)[:, None]


def _intervened(pipe, prompt, keep, clean, pooled, other, options) -> dict[str, Any]:
    length = options.get("max_sequence_length")
    full, base = encode(pipe, prompt, **options), encode_clean(pipe, prompt, clean, **options)
    rows = text_rows(pipe, prompt, max_sequence_length=length)
    own, spare = _rows_of(full["prompt_embeds"]), _rows_of(base["prompt_embeds"])
    rows = fitted(rows, len(own))
    text = torch.where(as_mask(own_rows(keep, rows), own), own, spare)
    if keep == "noise":
        noise = directions(*own.shape).to(own) * own.norm(dim=-1, keepdim=True)
        text = torch.where(as_mask(rows.pads, own), noise, text)
    if keep == "swapped":
        lent = _rows_of(encode(pipe, other, **options)["prompt_embeds"])
        places = swapped_rows(rows, fitted(text_rows(pipe, other, max_sequence_length=length), len(lent)))
        text[places] = lent[: len(own)][places[: len(lent)]]
    embeds = full | {"prompt_embeds": [text] if isinstance(full["prompt_embeds"], list) else text[None]}
    if pooled == "clean" and "pooled_prompt_embeds" in base:
        embeds["pooled_prompt_embeds"] = base["pooled_prompt_embeds"]
    if family(pipe) == "z_image":  # its call wants both or none
        embeds["negative_prompt_embeds"] = encode(pipe, "", **options)["prompt_embeds"]
    return embeds


def check_windows(pipe: DiffusionPipeline, prompts: Sequence[str]) -> None:
    """Raises UnsupportedModelError for prompts that long_prompts reads in windows of different lengths."""
    readers = [h.reader for part in text_encoders(pipe) if (h := active_handle(part.tokenizer, "long prompts"))]
    for reader in readers:
        if len({reader.window([reader.read(prompt)]) for prompt in prompts}) > 1:
            raise UnsupportedModelError(
                "some prompts of this batch fit in a window of 77 tokens and others do not: pass them in two batches"
            )


def fitted(rows: Rows, length: int) -> Rows:
    """The rows that the encoder gives. Raises UnsupportedModelError where the tokenizer speaks of other ones."""
    if length < len(rows) and not rows.prompt[length:].any() and not rows.pads[:length].any():
        return Rows(rows.prompt[:length], rows.eos[:length], rows.pads[:length])  # Z-Image fills up in the denoiser
    if length != len(rows):
        raise UnsupportedModelError(
            f"the tokenizers speak of {len(rows)} rows of text and the encoders give {length}: "
            "take off plugins that change how prompts are read"
        )
    return rows


def _rows_of(embeds: torch.Tensor | list[torch.Tensor]) -> torch.Tensor:
    """(L, d) of one prompt."""
    return embeds[0]


def _zeros(value: Any) -> Any:
    return [torch.zeros_like(one) for one in value] if isinstance(value, list) else torch.zeros_like(value)


def joined(made: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The embeddings of prompts as one batch, the shorter ones filled up with what is masked (Qwen-Image)."""
    joined: dict[str, Any] = {}
    for name in made[0]:
        values = [one[name] for one in made]
        if isinstance(values[0], list):
            joined[name] = [row for value in values for row in value]
        elif name == "prompt_embeds_mask":
            texts = [one["prompt_embeds"] for one in made]
            whole = [text.new_ones(text.shape[1], dtype=torch.long) for text in texts]
            masks = [one if value is None else value[0] for one, value in zip(whole, values, strict=True)]
            joined[name] = pad_sequence(masks, batch_first=True) if len(set(map(len, masks))) > 1 else None
        else:
            joined[name] = pad_sequence([value[0] for value in values], batch_first=True)
    return {name: value for name, value in joined.items() if value is not None}


def repeated(values: Any, images: int) -> Any:
    """A batch with each item so many times over; what is no batch as it is."""
    if isinstance(values, torch.Tensor):
        return values.repeat_interleave(images, dim=0)
    return [value for value in values for _ in range(images)] if isinstance(values, list) else values
