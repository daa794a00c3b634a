"""The count token: learned vectors, one for each text encoder, and the word that stands for them in a prompt."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes

from t2i_tools.errors import InputError, ModelError, UnsupportedModelError
from t2i_tools.files import replacing
from t2i_tools.loading import PICKLES, check_safetensors, opening
from t2i_tools.models import TextEncoder, text_encoders

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

HEADER = "t2i-tools count token"
# fmt: off
SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)
# fmt: on
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


@dataclass
class CountToken:
    """Learned vectors for a word such as "<count-7>": "a photo of <count-7> apples", or "<count-7> seven apples".

    vectors: text encoder's name in the pipeline ("text_encoder", "text_encoder_2") -> (k, d) float32, k = 1 unless the
    search was told otherwise; the word stands in the prompt k times, and means one vector after the other. keys: under
    which name each is written, see `file_key`. n: how many objects it was learned for, of the class `label`.
    settings: what it was learned with: template, seeds, versions, and whether the number stood beside it.
    """

    word: str
    n: int
    label: str
    vectors: dict[str, torch.Tensor]
    keys: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """k: how many vectors there are for each encoder."""
        return max((len(vector) for vector in self.vectors.values()), default=1)

    def spoken(self) -> str:
        """What stands for the number in a prompt: the word k times, and the number if it was learned with it."""
        words = [self.word] * self.rows + ([number_word(self.n)] if self.settings.get("number", True) else [])
        return " ".join(words)

    def prompt(self, template: str) -> str:
        """The template with "{count}" replaced, as when the token was learned. Raises InputError when it has none."""
        return fill_template(template, {"count": self.spoken()})

    def save(self, path: str | os.PathLike) -> None:
        """A textual inversion file in safetensors, complete or not at all.

        One text encoder: {word: (k, d)}, which `pipe.load_textual_inversion(path)` reads. Several: {"clip_l": (k, d),
        "clip_g": (k, d), "t5xxl": (k, d)}, which takes one call an encoder. ComfyUI reads either. Both put all k
        vectors where the word stands once. What else belongs to the token is in the header. Raises InputError for a
        place that cannot be written.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise InputError(f"a count token is written as .safetensors, not as {path.name}")
        tensors = {self.keys[name]: v.detach().float().cpu().contiguous() for name, v in self.vectors.items()}
        about = {name: getattr(self, name) for name in ("word", "n", "label", "keys", "settings")}
        # One entry only: safetensors writes several in an order that differs from run to run.
        content = to_bytes(tensors, {HEADER: json.dumps(about, sort_keys=True)})
        with replacing(path) as part:
            part.write_bytes(content)

    @classmethod
    def load(cls, path: str | os.PathLike, pipe: DiffusionPipeline | None = None) -> CountToken:
        """Read what `save` wrote, and check that it fits `pipe` where one is given.

        Raises ModelError for a missing, broken or other file, UnsupportedModelError for a model it does not fit.
        """
        path = Path(path)
        if path.suffix.lower() in PICKLES:
            raise ModelError(f"{path} is a pickle, which can run code when opened: convert it to .safetensors first")
        names = check_safetensors(path)
        with opening(path), safe_open(path, "pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in names}
        if HEADER not in about:
            raise ModelError(
                f"{path} is no count token: open other textual inversions with pipe.load_textual_inversion"
            )
        with opening(path):
            about = json.loads(about[HEADER])
            vectors = {name: tensors[key] for name, key in about["keys"].items()}
            token = cls(vectors=vectors, **{name: about[name] for name in ("word", "n", "label", "keys", "settings")})
        for name, vector in vectors.items():
            if vector.ndim != 2 or len(vector) != token.rows or not torch.isfinite(vector).all():
                raise ModelError(
                    f"{path} is damaged: the vectors of {name} are not {token.rows} rows of finite numbers"
                )
        if pipe is not None:
            token.check(pipe)
        return token

    def check(self, pipe: DiffusionPipeline) -> None:
        """Raise UnsupportedModelError unless the token has a vector of the right width for every text encoder."""
        for part in token_encoders(pipe):
            width = part.encoder.get_input_embeddings().weight.shape[1]
            if part.name not in self.vectors:
                raise UnsupportedModelError(
                    f"{self.word} was learned for {', '.join(self.vectors)}, this model also has {part.name}"
                )
            if (there := self.vectors[part.name].shape[-1]) != width:
                raise UnsupportedModelError(
                    f"{self.word} was learned for a {part.name} of width {there}, this model's has {width}"
                )


def token_encoders(pipe: DiffusionPipeline) -> list[TextEncoder]:
    """The text encoders that can read a new word. Raises UnsupportedModelError when one cannot, or there is none."""
    parts = text_encoders(pipe)
    if not parts:
        raise UnsupportedModelError(f"{type(pipe).__name__} has no text encoder: there are no words to learn")
    for part in parts:
        if not hasattr(part.tokenizer, "backend_tokenizer"):
            raise UnsupportedModelError(
                f"{type(part.tokenizer).__name__} cannot be given a word: a count token needs tokenizers of the "
                "tokenizers library"
            )
    return parts


def start_token(
    pipe: DiffusionPipeline, n: int, label: str, *, word: str | None = None, start: str = "some", rows: int = 1
) -> CountToken:
    """A token that still means `start`: each of an encoder's `rows` vectors is the mean of that text's embeddings.

    Raises InputError for an n below 1 or a start without words, UnsupportedModelError.
    """
    if n < 1:
        raise InputError(f"count {n} is out of range: it takes 1 or more")
    parts = token_encoders(pipe)
    vectors = {part.name: _mean_embedding(part, start).repeat(rows, 1) for part in parts}
    return CountToken(word or f"<count-{n}>", n, label, vectors, _file_keys(parts, word or f"<count-{n}>"))


def fill_template(template: str, values: Mapping[str, str]) -> str:
    """The template with every "{name}" replaced, each of which must be there. Raises InputError."""
    for name, value in values.items():
        if f"{{{name}}}" not in template:
            raise InputError(f'the prompt {template!r} has no "{{{name}}}", where the number of objects goes')
        template = template.replace(f"{{{name}}}", value)
    return template


def fill_tokens(prompt: str, tokens: Sequence[CountToken]) -> str:
    """The prompt with what stands for each token in its place: "{count}" of a single token, "{class}" of several.

    A token whose word is in the prompt already needs none. Raises InputError for one that has no place.
    """
    for token in tokens:
        place = "{count}" if len(tokens) == 1 else f"{{{token.label}}}"
        if place not in prompt and token.word not in prompt:
            raise InputError(
                f'the prompt {prompt!r} has no place for {token.word}: write "{place}" where the number goes'
            )
        prompt = prompt.replace(place, token.spoken())
    return prompt


def check_distinct(tokens: Sequence[CountToken], names: Sequence[str]) -> None:
    """Raise InputError where two tokens have the same word, which could then only mean one of them.

    names: what the tokens are called by whoever chose them.
    """
    first: dict[str, str] = {}
    for token, name in zip(tokens, names, strict=True):
        if token.word in first:
            raise InputError(f"{first[token.word]} and {name} carry the same token {token.word}: leave one of them out")
        first[token.word] = name


def number_word(n: int) -> str:
    """ "seven", "twenty-five"; from 100 on digits."""
    if n < 20:
        return SMALL[n]
    if n < 100:
        return TENS[n // 10 - 2] + (f"-{SMALL[n % 10]}" if n % 10 else "")
    return str(n)


def _file_keys(parts: list[TextEncoder], word: str) -> dict[str, str]:
    """The word itself for a single encoder, else ComfyUI's names: clip_l, clip_g, t5xxl; our own for what has none."""
    if len(parts) == 1:
        return {parts[0].name: word}
    clips, keys = iter(("clip_l", "clip_g")), {}
    for part in parts:
        kind = type(part.encoder).__name__
        known = next(clips, part.name) if re.match("CLIPText", kind) else "t5xxl" if "T5" in kind else part.name
        keys[part.name] = known
    return keys


def _mean_embedding(part: TextEncoder, text: str) -> torch.Tensor:
    """(1, d) float32."""
    ids = part.tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise InputError(f"the start {text!r} has no words")
    table = part.encoder.get_input_embeddings().weight.detach()
    if table.is_meta:
        raise UnsupportedModelError(
            f"the weights of {part.name} are fetched layer by layer: make the token before "
            "enable_sequential_cpu_offload()"
        )
    return table[torch.tensor(ids, device=table.device)].float().mean(0, keepdim=True).cpu()
