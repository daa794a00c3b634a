"""Textual inversions of other tools, read where their word stands, by the hooks of the count token."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open

from t2i_tools.counting.hooks import AddedWord, VectorWriter
from t2i_tools.errors import InputError, ModelError, UnsupportedModelError
from t2i_tools.handle import Handle
from t2i_tools.models.anatomy import TextEncoder, text_encoders
from t2i_tools.models.loading import PICKLES, check_safetensors, opening

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# A1111's layouts hold one tensor under a name that is no word; the word is the file's name.
UNNAMED = ("emb_params", "string_to_param", "string_to_param.*")
ENCODERS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
T5 = ("t5xxl", "t5")
MOST_VECTORS = 256


@dataclass(frozen=True)
class Inversion:
    """A word and its vectors. vectors: key in the file, or "" for one that names no encoder -> (k, d) float32."""

    word: str
    vectors: Mapping[str, torch.Tensor]
    file: str = ""

    @property
    def length(self) -> int:
        """k: how many tokens the word takes."""
        return max(map(len, self.vectors.values()))

    def fill(self, prompt: str) -> str:
        """The prompt with the word k times where it stands by itself: each time is one vector's place."""
        return self._alone.sub(lambda match: " ".join([match[0]] * self.length), prompt)

    def used_in(self, prompt: str) -> bool:
        """Whether a prompt has the word."""
        return bool(self._alone.search(prompt))

    @property
    def _alone(self) -> re.Pattern[str]:
        return re.compile(rf"(?<!\w){re.escape(self.word)}(?!\w)", re.IGNORECASE)

    def by_encoder(self, pipe: DiffusionPipeline) -> list[tuple[TextEncoder, torch.Tensor]]:
        """The encoders that have vectors, with them. Raises UnsupportedModelError for vectors that fit none."""
        parts = [part for part in text_encoders(pipe) if part.tokenizer is not None]
        found = []
        for key, vectors in self.vectors.items():
            fitting = [part for part in parts if _fits(part, key, vectors.shape[1])]
            if not fitting:
                widths = ", ".join(f"{part.name} {_width(part)}" for part in parts)
                raise UnsupportedModelError(
                    f"{self.file or self.word}: its vectors{f' {key}' if key else ''} are {vectors.shape[1]} wide, and "
                    f"this model's text encoders are {widths}: it was learned for another model"
                )
            found += [(part, vectors) for part in fitting]
        return sorted(found, key=lambda one: one[0].name)


def read_inversion(path: str | os.PathLike) -> Inversion:
    """Read a textual inversion in safetensors: A1111's (`emb_params`), diffusers' {word: vectors}, SDXL's two keys.

    Args:
        path: The file; where it does not say the word, its name does.

    Raises:
        ModelError: The file is missing, a pickle, broken, or of another layout.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() in PICKLES:
        raise ModelError(f"{path} is a pickle, which can run code when opened: convert it to .safetensors first")
    names = check_safetensors(path)
    with opening(path), safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in names}
    if len(names) == 1 and names[0] not in (*ENCODERS, *T5):
        word, tensors = (path.stem if names[0] in UNNAMED else names[0]), {"": tensors[names[0]]}
    elif names and all(name in (*ENCODERS, *T5) for name in names):
        word = path.stem
    else:
        listed = ", ".join(names[:4])
        raise ModelError(f"{path} is not a textual inversion: it holds {listed}{'...' if len(names) > 4 else ''}")
    vectors = {key: (value[None] if value.ndim == 1 else value) for key, value in tensors.items()}
    for value in vectors.values():
        usable = value.ndim == 2 and 1 <= len(value) <= MOST_VECTORS and value.is_floating_point()
        if not (usable and torch.isfinite(value).all()):
            raise ModelError(f"{path} is not a textual inversion: its vectors are not rows of finite numbers")
    if len({len(value) for value in vectors.values()}) > 1:
        raise ModelError(f"{path} is damaged: its encoders have different numbers of vectors")
    if not word.strip() or re.search(r"[\s()\[\]:|\\]", word):
        raise ModelError(f"{path}: the word {word!r} cannot stand in a prompt: rename the file")
    return Inversion(word, {key: value.float() for key, value in vectors.items()}, path.name)


def textual_inversion(pipe: DiffusionPipeline, source: Inversion | str | os.PathLike) -> Handle:
    """Let prompts contain a textual inversion's word until the handle's `remove()`; of k vectors, k times.

    No vocabulary grows, so that nothing else is read otherwise and the removal leaves nothing. Text encoders for which
    the file has no vector (T5 of SD3 and Flux) read the word as letters.

    Args:
        pipe: The pipeline.
        source: What `read_inversion` gives, or its file.

    Returns:
        A handle; its report says how often each encoder has read the word.

    Raises:
        ModelError: The file cannot be read.
        UnsupportedModelError: It was learned for another model.
        InputError: The word means something already.
    """
    inversion = source if isinstance(source, Inversion) else read_inversion(source)
    parts = inversion.by_encoder(pipe)
    for part, _ in parts:
        known = part.tokenizer.get_vocab()
        if inversion.word.lower() in known or f"{inversion.word.lower()}</w>" in known:
            raise InputError(f"the word {inversion.word!r} of {inversion.file} has a meaning already: rename the file")
    writers: list[VectorWriter] = []
    handle = Handle(parts[0][0].encoder, f"textual inversion {inversion.word}", lambda: [w.row() for w in writers])
    words: dict[int, AddedWord] = {}
    try:
        for part, vectors in parts:
            if id(part.tokenizer) not in words:  # two encoders may share one
                words[id(part.tokenizer)] = word = AddedWord(part.tokenizer, inversion.word)
                handle.on_remove(word.remove)
            own = Inversion(inversion.word, {part.name: vectors})
            writers.append(VectorWriter(part.name, part.encoder, own, words[id(part.tokenizer)].id))
            handle.on_remove(writers[-1].end)
    except BaseException:
        handle.remove()
        raise
    return handle


def check_words(inversions: Sequence[Inversion]) -> None:
    """Raise InputError where two files have the same word."""
    first: dict[str, str] = {}
    for one in inversions:
        if one.word.lower() in first:
            raise InputError(f"{first[one.word.lower()]} and {one.file} carry the same word {one.word}: leave one out")
        first[one.word.lower()] = one.file


def _width(part: TextEncoder) -> int:
    return part.encoder.get_input_embeddings().weight.shape[1]


def _fits(part: TextEncoder, key: str, width: int) -> bool:
    clip = str(part.encoder.config.model_type).startswith("clip")
    named = clip if not key else (not clip if key in T5 else part.name == ENCODERS[key])
    return named and _width(part) == width
