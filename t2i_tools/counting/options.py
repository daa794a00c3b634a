"""What a search for exact counts can be told, and what it looks for."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from t2i_tools.detectors import Counter, Guide, find_label, finds_any_word
from t2i_tools.detectors.detections import spelling
from t2i_tools.errors import InputError
from t2i_tools.sizes import Size

if TYPE_CHECKING:
    from torch import nn

# fmt: off
METHODS = (
    "plain", "best_of", "bisection", "bisection+best_of", "token", "token+best_of", "noise", "noise+best_of",
    "token+noise", "random_walk",
)
# fmt: on
GRADIENT = ("token", "token+best_of", "noise", "noise+best_of", "token+noise")
WORDLESS = ("plain", "best_of", "noise", "noise+best_of")  # they leave the prompt as a person would write it


@dataclass(frozen=True)
class Options:
    """How to search.

    method: "plain" (one picture), "best_of" (other seeds), "bisection" (the token between the numbers' words, see
    `counting.bisection`), "bisection+best_of" (which after `explore` trials around its end takes other seeds), "token"
    (the paper's, by a gradient), "noise" (the initial noise instead of the token), "token+noise", "random_walk" (the
    token, by steps in random directions), "token+best_of" or "noise+best_of" (rounds of `explore` seeds, and the token
    or the noise on the best of them). budget: compute, in plain pictures' worth. patience: so many steps without a
    better one end the search, or the round.

    size: (height, width) in pixels. steps, guidance, negative: the pipeline's own when None.
    lr: of AdamW, and the length of a random step, in root mean squares of the encoder's embeddings (the paper's 0.01 on
    CLIP-L is 0.7). noise_lr: length of a step down the noise's gradient, as a share of the noise's own. max_norm: what
    a gradient is shortened to. grad_steps, grad_where: it goes through so many timesteps (4 by default, 1 for the noise
    alone), the "first", where counts are decided, the "last" or "spread" ones; the others count as constant.
    scale: potential per object, a number for the paper's static one; None follows the detector. focus: the gradient
    comes from where an object is to go or to come, see `loss.focus`. guide: gives the gradient where `counter` only
    counts. clip: a `ClipTerm`, weighed by clip_weight.
    start: the text whose embedding the token starts from, the number's own word when None (the paper: "some"). number:
    whether the number follows the token in the prompt, as in the paper; by default it does not, because then the first
    picture is the plain one: a search that has nothing to repair ends with it, and to the counter none ends
    with a worse one. vectors: how many the token has for each text encoder, one after the other in the prompt.
    encoders: names of the text encoders to learn for, all when None. batch: pictures at once. checkpointing, vae: see
    `Sampler`. checkpoint: a file written after every step, from which the same search goes on to the same bytes.
    Raises InputError for values out of range.
    """

    method: str = "token"
    budget: float = 50.0
    patience: int = 15
    explore: int = 4
    size: Size | None = None
    steps: int | None = None
    guidance: float | None = None
    negative: str | None = None
    lr: float = 0.3
    noise_lr: float = 0.25
    max_norm: float = 1.0
    grad_steps: int | None = None
    grad_where: str = "first"
    scale: float | None = None
    focus: bool = True
    guide: Guide | None = None
    clip: Any = None
    clip_weight: float = 5.0
    start: str | None = None
    number: bool = False
    vectors: int = 1
    encoders: Sequence[str] | None = None
    batch: int = 1
    checkpointing: bool = False
    vae: nn.Module | None = None
    checkpoint: str | os.PathLike | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"unknown method {self.method!r}: choose {', '.join(METHODS)}")
        if self.start is not None and self.method.startswith("bisection"):
            raise InputError("bisection begins at the number's own word: leave start out, or choose another method")
        for name in ("budget", "patience", "explore", "grad_steps", "vectors", "batch"):
            value = getattr(self, name)
            if value is not None and not value >= 1:
                raise InputError(f"{name} {value} is out of range: it takes 1 or more")
        for name in ("lr", "noise_lr", "max_norm", "scale"):
            value = getattr(self, name)
            if value is not None and not (0 < value < math.inf):
                raise InputError(f"{name} {value} is out of range: it takes a number above 0")

    @property
    def graph_steps(self) -> int:
        """`grad_steps`, or the usual. The noise is carried through the steps without a graph as well."""
        return self.grad_steps or (1 if self.wordless else 4)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Options:
        """From keyword arguments. Raises InputError for one it does not know."""
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in values if name not in known]:
            raise InputError(f"a count search knows no option {unknown[0]!r}, only {', '.join(known)}")
        return cls(**values)

    @property
    def wordless(self) -> bool:
        """Whether the method learns no token."""
        return self.method in WORDLESS

    @property
    def gradient(self) -> bool:
        """Whether the method needs one."""
        return self.method in GRADIENT


@dataclass(frozen=True)
class Goal:
    """How many objects of which class a picture is to hold: label -> number, the label being the counter's own word."""

    counts: Mapping[str, int]

    def error(self, found: Mapping[str, int]) -> int:
        """The sum of |found - wanted| over the classes."""
        return sum(abs(found[label] - n) for label, n in self.counts.items())

    def surplus(self, found: Sequence[Mapping[str, int]]) -> list[list[int]]:
        """found - wanted, class by class, in each picture."""
        return [[one[label] - n for one in found] for label, n in self.counts.items()]


def find_goal(text: str, n: int | None, label: str | None, counts: Mapping[str, int] | None, counter: Counter) -> Goal:
    """The goal that the arguments name; without a label it is the one class of the counter's that the text names.

    Raises InputError.
    """
    if (n is None) == (counts is None):
        raise InputError("say how many: either a number or counts={class: number, ...}")
    if counts is None:
        counts = {label or label_in(text, counter): n}
    for name, number in counts.items():
        if number < 1:
            raise InputError(f"count {number} of {name!r} is out of range: it takes 1 or more")
        if (known := getattr(counter, "labels", ())) and not finds_any_word(counter):
            find_label(name, known)
    return Goal(dict(counts))


def label_in(text: str, counter: Counter) -> str:
    """The one class of the counter that a text names. Raises InputError when it names none or several."""
    words = text.lower().replace(",", " ").split()
    phrases = [" ".join(words[i : i + length]) for length in (1, 2, 3) for i in range(len(words))]
    spoken = frozenset().union(*(spelling(phrase) for phrase in phrases))
    named = [label for label in getattr(counter, "labels", ()) if spelling(label) & spoken]
    if len(named) != 1:
        what = f"several classes ({', '.join(named)})" if named else "no class that the counter knows"
        raise InputError(f"the prompt names {what}: say which to count with label=")
    return named[0]
