"""The count token: learned vectors, one for each text encoder, and the word that stands for them in a prompt."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes

from t2i_tools.errors import InputError, ModelError, UnsupportedModelError, shortened
from t2i_tools.files import replacing
from t2i_tools.images.number_words import number_word
from t2i_tools.models.anatomy import TextEncoder, text_encoders
from t2i_tools.models.loading import PICKLES, check_safetensors, opening

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

HEADER = "t2i-tools count token"
FIELDS = ("word", "n", "label", "keys", "settings")
MOST_OBJECTS = 10_000


class TokenSettings(TypedDict, total=False):
    """What a token was learned with, see `CountOptions`; a token of another version may hold less."""

    template: str
    seeds: list[int]
    method: str
    steps: int | None
    guidance: float | None
    lr: float
    grad_steps: int
    grad_where: str
    start: str | None
    number: bool
    versions: dict[str, str]


@dataclass
class CountToken:
    """A count token holds learned vectors for a word: "a photo of <count-7> apples".

    Args:
        word: What stands in the prompt k times, and means one vector after the other.
        n: How many objects it was learned for.
        label: Their class.
        vectors: Text encoder's name in the pipeline ("text_encoder", "text_encoder_2") -> (k, d) float32; k is 1 unless
            `CountOptions.vectors` says otherwise.
        keys: Text encoder's name -> the name under which a file holds its vectors.
        settings: What it was learned with: template, seeds, versions, and whether the number stood beside it; empty by
            default.

    Source: Zafar et al. 2024, arXiv 2408.11721.

    Example:
        >>> token = t2i.CountToken.load("seven.safetensors")  # doctest: +SKIP
        >>> with t2i.count_token(pipe, token):  # doctest: +SKIP
        ...     image = pipe(token.prompt("a photo of {count} apples")).images[0]
    """

    word: str
    n: int
    label: str
    vectors: dict[str, torch.Tensor]
    keys: dict[str, str]
    settings: TokenSettings = field(default_factory=lambda: TokenSettings())

    @property
    def length(self) -> int:
        """Return k: how many vectors there are per encoder."""
        return max((len(vector) for vector in self.vectors.values()), default=1)

    def spoken(self) -> str:
        """Say what stands for the number in a prompt: the word k times, and the number if it was learned with it.

        Returns:
            The words.
        """
        words = [self.word] * self.length + ([number_word(self.n)] if self.settings.get("number", True) else [])
        return " ".join(words)

    def prompt(self, template: str) -> str:
        """Fill in a template as when the token was learned.

        Args:
            template: A prompt with "{count}" in it.

        Returns:
            The prompt with the token's words in the place of "{count}".

        Raises:
            InputError: The template has no "{count}".
        """
        return fill_template(template, {"count": self.spoken()})

    def save(self, path: str | os.PathLike) -> None:
        """Write a textual inversion file in safetensors, complete or not at all.

        One text encoder: {word: (k, d)}, which `pipe.load_textual_inversion(path)` reads. Several: {"clip_l": (k, d),
        "clip_g": (k, d), "t5xxl": (k, d)}, which takes one call per encoder. ComfyUI reads either. Both put all k
        vectors where the word stands once. What else belongs to the token is in the header.

        Args:
            path: The file, ending in .safetensors.

        Raises:
            InputError: The file ends otherwise, or the place cannot be written.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise InputError(f"a count token is written as .safetensors, not as {path.name}")
        tensors = {self.keys[name]: v.detach().float().cpu().contiguous() for name, v in self.vectors.items()}
        about = {name: getattr(self, name) for name in FIELDS}
        # One entry only: safetensors writes several in an order that differs from run to run.
        content = to_bytes(tensors, {HEADER: json.dumps(about, sort_keys=True)})
        with replacing(path) as part:
            part.write_bytes(content)

    @classmethod
    def load(cls, path: str | os.PathLike, pipe: DiffusionPipeline | None = None) -> CountToken:
        """Read what `save` wrote.

        Args:
            path: The file.
            pipe: A pipeline that the token has to fit; None (the default) to check nothing.

        Returns:
            The token.

        Raises:
            ModelError: The file is missing, broken, a pickle, or no count token.
            UnsupportedModelError: The token does not fit the pipeline.
            OutOfMemoryError: It does not fit into memory.
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
                f"{path} is not a count token: give other textual inversions with --embedding, or open them with "
                "pipe.load_textual_inversion"
            )
        values = _read_header(path, about[HEADER])
        if missing := [key for key in values["keys"].values() if key not in tensors]:
            raise ModelError(f"{path} is damaged: it has no vectors {shortened(missing[0])!r}")
        vectors = {name: tensors[key] for name, key in values["keys"].items()}
        token = cls(vectors=vectors, **values)
        for name, vector in vectors.items():
            if (
                not vector.is_floating_point()
                or vector.ndim != 2
                or len(vector) != token.length
                or not torch.isfinite(vector).all()
            ):
                raise ModelError(
                    f"{path} is damaged: the vectors of {name} are not {token.length} rows of finite numbers"
                )
        if pipe is not None:
            token.check(pipe)
        return token

    def check(self, pipe: DiffusionPipeline) -> None:
        """Check that the token has vectors of the right width for every text encoder of a pipeline.

        Args:
            pipe: A text-to-image pipeline.

        Raises:
            UnsupportedModelError: It has not.
        """
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


def _read_header(path: Path, text: str) -> dict[str, Any]:
    """The fields of a token but its vectors. Raises ModelError where one is not what `save` writes."""
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: its header is not JSON") from error
    values = {name: about.get(name) if isinstance(about, dict) else None for name in FIELDS}
    word, n, label, keys = (values[name] for name in ("word", "n", "label", "keys"))
    checks = {
        "word": isinstance(word, str) and re.fullmatch(r"\S{1,100}", word) and word.isprintable(),
        "n": isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= MOST_OBJECTS,
        "label": isinstance(label, str) and 1 <= len(label) <= 100 and label.isprintable(),
        "keys": isinstance(keys, dict) and keys and all(isinstance(key, str) for key in keys.values()),
        "settings": isinstance(values["settings"], dict),
    }
    if wrong := [name for name, right in checks.items() if not right]:
        raise ModelError(f"{path} is damaged: its {wrong[0]} cannot be {shortened(repr(values[wrong[0]]))}")
    return values


def token_encoders(pipe: DiffusionPipeline) -> list[TextEncoder]:
    """The text encoders that can read a new word. Raises UnsupportedModelError when one cannot, or there is none."""
    parts = text_encoders(pipe)
    if not parts:
        raise UnsupportedModelError(f"{type(pipe).__name__} has no text encoder: there are no words to learn")
    for part in parts:
        if not hasattr(part.tokenizer, "backend_tokenizer"):
            raise UnsupportedModelError(
                f"{type(part.tokenizer).__name__} cannot take a new word: load the pipeline with a fast tokenizer"
            )
    return parts


def start_token(
    pipe: DiffusionPipeline,
    n: int,
    label: str,
    *,
    word: str | None = None,
    start: str = "some",
    length: int | None = None,
) -> CountToken:
    """Make a token that still means `start`.

    Args:
        pipe: whose text encoders read it.
        n: objects that it stands for, 1 or more.
        label: of the objects.
        word: what stands for it in a prompt; "<count-n>" when None.
        start: the text whose embeddings are its vectors.
        length: vectors per encoder; when None as many as `start` has tokens, in the encoder with most. Where the number
            differs, the embeddings are laid evenly over the vectors and interpolated; of a single vector, their mean.

    Raises:
        InputError: n is below 1, or the start has no words.
        UnsupportedModelError: an encoder cannot read a new word.
    """
    if n < 1:
        raise InputError(f"count {n} is out of range: use 1 or more")
    parts = token_encoders(pipe)
    embeddings = {part.name: _embeddings(part, start) for part in parts}
    length = length or max(map(len, embeddings.values()))
    vectors = {name: laid_over(rows, length) for name, rows in embeddings.items()}
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


def laid_over(embeddings: torch.Tensor, length: int) -> torch.Tensor:
    """Return `length` rows, evenly spaced on the line through the rows of embeddings (k, d); of one row, the mean."""
    if length == len(embeddings):
        return embeddings
    if length == 1:
        return embeddings.mean(0, keepdim=True)
    places = torch.linspace(0, len(embeddings) - 1, length)
    low = places.floor().long()
    high = places.ceil().long()
    return torch.lerp(embeddings[low], embeddings[high], (places - low)[:, None])


def _embeddings(part: TextEncoder, text: str) -> torch.Tensor:
    """(k, d) float32: those of a text's tokens."""
    ids = part.tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise InputError(f"the start {text!r} has no words: give at least one")
    table = part.encoder.get_input_embeddings().weight.detach()
    if table.is_meta:
        raise UnsupportedModelError(
            f"the weights of {part.name} are loaded layer by layer: make the token before "
            "enable_sequential_cpu_offload()"
        )
    return table[torch.tensor(ids, device=table.device)].float().cpu()
