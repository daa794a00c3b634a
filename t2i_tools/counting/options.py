"""How a search for exact counts goes (`CountOptions`), and what it looks for (`Goal`)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING

from t2i_tools.counting.early_look import LOOK_AT
from t2i_tools.counting.methods import DEFAULT_BUDGET, DEFAULT_METHOD, GRADIENT, METHODS, WORDLESS
from t2i_tools.detectors import Counter, Guide, find_label, finds_any_word
from t2i_tools.detectors.names import spelling
from t2i_tools.errors import InputError
from t2i_tools.images.sizes import Size, check_size

if TYPE_CHECKING:
    from torch import nn

    from t2i_tools.counting.clip_term import ClipTerm
    from t2i_tools.counting.look_record import LookRecords

GRAD_WHERE = ("first", "last", "spread", "all")
CLIP_TEXT, BEST_BY = ("prompt", "label"), ("error", "loss")


@dataclass(frozen=True)
class CountOptions:
    """These options say how to search for an exact count.

    Args:
        method: One of `METHODS`; "bisection+best_of" by default.
        budget: Compute per image, in plain images' worth of denoiser passes; 30 by default.
        patience: So many trials without a better one end the search, or the round; 15 by default.
        explore: Trials per round of token or noise "+best_of": other seeds, before it is learned on the best of them; 4
            by default.
        size: (height, width) in pixels; the pipeline's own when None.
        steps: Denoising steps; the pipeline's own when None.
        guidance: The guidance scale; the pipeline's own when None.
        negative: The negative prompt.
        lr: Learning rate of AdamW, and length of a random step, in root mean squares of the encoder's embeddings; 0.3
            by default. The paper's 0.01 on CLIP-L is 0.7.
        noise_lr: Length of a step down the noise's gradient, as a share of the noise's length; 0.25 by default.
        max_norm: The length to which a longer gradient is cut; 1 by default, infinite for never.
        grad_steps: Timesteps that the gradient goes through; None for 4, or 1 where only the noise is learned.
        grad_where: Which timesteps: the "first" (the default), where counts are decided, the "last", or "spread"
            evenly, the others counting as constant; or "all", whatever grad_steps says.
        scale: Potential per object, a number for the paper's static scale; None follows the detector (dynamic).
        focus: Take the gradient only from where an object has to go or to come, see `formula.focus`; True by
            default.
        guide: A detector that gives the gradient where `counter` only counts.
        clip: A `ClipTerm`, which keeps the image to its prompt.
        clip_weight: Weight of the CLIP term; 5 by default.
        start: The text whose embedding the token starts from; the number's own word when None.
        number: Put the number after the token in the prompt, as the paper does; False by default.
        vectors: Vectors per text encoder, one after the other in the prompt; as many as the start has tokens when None.
        encoders: Names of the text encoders to learn for; all when None.
        batch: Images drawn at once, where a search has several seeds; 1 by default.
        checkpointing: Compute activations again in the backward pass, which takes less memory and more time;
            False by default.
        vae: Another VAE for images with a graph, for instance an `AutoencoderTiny`.
        checkpoint: A file written after every step, from which the same search goes on to the same bytes.
        early_look: Count the predicted image half-way, and end a trial that has no chance, see `early_look.py`. A
            `LookRecords` does so too, and carries over, from search to search, how often looks agreed with the final
            count. False by default.
        look_at: Share of the steps before the look; 0.5 by default.
        look_cost: Of a look, in plain images' worth; measured by the clock at the first one when None.
        weight_decay: Of AdamW on the token; 0 by default.
        clip_text: What the CLIP term compares the image with: the "prompt" (the default), or the "label", the class
            word alone.
        best_by: What the best trial has least of: "error" (the default), the distance of the count, or "loss". By error
            a search ends with the first exact image, by loss when the loss is 0.
        max_trials: So many trials end the search; None for as many as the budget allows.
        keep: "image" stays on the first seed, so that the image is changed and not exchanged.

    Raises:
        InputError: A value is out of range.
    """

    method: str = DEFAULT_METHOD
    budget: float = DEFAULT_BUDGET
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
    clip: ClipTerm | None = None
    clip_weight: float = 5.0
    start: str | None = None
    number: bool = False
    vectors: int | None = None
    encoders: Sequence[str] | None = None
    batch: int = 1
    checkpointing: bool = False
    vae: nn.Module | None = None
    checkpoint: str | os.PathLike[str] | None = None
    early_look: bool | LookRecords = False
    look_at: float = LOOK_AT
    look_cost: float | None = None
    weight_decay: float = 0.0
    clip_text: str = "prompt"
    best_by: str = "error"
    max_trials: int | None = None
    keep: str | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"unknown method {self.method!r}: choose {', '.join(METHODS)}")
        if self.start is not None and self.method.startswith("bisection"):
            raise InputError("bisection begins at the number's own word: leave start out, or choose another method")
        for name, known in (("grad_where", GRAD_WHERE), ("clip_text", CLIP_TEXT), ("best_by", BEST_BY)):
            if (value := getattr(self, name)) not in known:
                raise InputError(f"unknown {name} {value!r}: choose {', '.join(known)}")
        for name in ("patience", "explore", "grad_steps", "vectors", "batch", "max_trials"):
            check_number(name, getattr(self, name), least=1, whole=True)
        check_number("budget", self.budget, least=1)
        for name in ("lr", "noise_lr", "scale"):
            check_number(name, getattr(self, name), above=0)
        if self.max_norm != math.inf:
            check_number("max_norm", self.max_norm, above=0)
        check_number("weight_decay", self.weight_decay, least=0)
        check_number("clip_weight", self.clip_weight, least=0)
        check_number("look_cost", self.look_cost, least=0)
        check_number("look_at", self.look_at, above=0)
        if self.look_at >= 1:
            raise InputError(f"look_at {self.look_at} is out of range: it is a share of the steps, below 1")
        if self.keep not in (None, "image"):
            raise InputError(f"unknown keep {self.keep!r}: only 'image', or leave it out")
        if self.keep and self.method in ("best_of", "token+best_of", "noise+best_of"):
            raise InputError(f"method {self.method!r} takes other seeds, which keep='image' rules out")
        if self.size is not None:
            check_size(self.size)
        if self.steps and (self.grad_steps or 0) > self.steps:
            raise InputError(
                f"grad_steps {self.grad_steps} is more than the {self.steps} denoising steps that there are"
            )

    @property
    def graph_steps(self) -> int:
        """Return `grad_steps`, or the usual number. The noise is carried through the steps without a graph as well."""
        return self.grad_steps or (1 if self.wordless else 4)

    @property
    def wordless(self) -> bool:
        """Return whether the method learns no token."""
        return self.method in WORDLESS

    @property
    def gradient(self) -> bool:
        """Return whether the method needs one."""
        return self.method in GRADIENT


@dataclass(frozen=True)
class Goal:
    """How many objects of which class an image has to hold: label -> number, the label being the counter's word."""

    counts: Mapping[str, int]

    def error(self, counted: Mapping[str, int]) -> int:
        """Return the sum of |counted - wanted| over the classes."""
        return sum(abs(counted[label] - n) for label, n in self.counts.items())

    def surplus(self, counted: Sequence[Mapping[str, int]]) -> list[list[int]]:
        """Return counted - wanted, one list per class with one entry per image."""
        return [[one[label] - n for one in counted] for label, n in self.counts.items()]


def check_counter(counter: Counter | None) -> Counter:
    """Return the counter.

    Raises:
        InputError: There is none, or it cannot detect.
    """
    if counter is None or not hasattr(counter, "detect"):
        what = "none was given" if counter is None else f"{type(counter).__name__} cannot detect"
        raise InputError(f"a search needs a counter, and {what}: pass a detector, for instance load_bundled_counter()")
    return counter


def find_goal(text: str, n: int | None, label: str | None, counts: Mapping[str, int] | None, counter: Counter) -> Goal:
    """Read the goal from the arguments; without a label it is the one class of the counter's that the text names.

    Raises:
        InputError: The arguments name no goal, or the counter does not know the class.
    """
    if n is not None and counts is None:
        check_number("count", n, least=1, whole=True)
        counts = {label or label_in(text, counter): n}
    elif n is not None or counts is None:
        raise InputError("say how many: either a number or counts={class: number, ...}")
    for name, number in counts.items():
        check_number(f"count of {name!r}", number, least=1, whole=True)
        if (known := getattr(counter, "labels", ())) and not finds_any_word(counter):
            find_label(name, known)
    return Goal(dict(counts))


def label_in(text: str, counter: Counter) -> str:
    """Find the one class of the counter that a text names.

    Raises:
        InputError: It names none or several.
    """
    words = text.lower().replace(",", " ").split()
    phrases = [" ".join(words[i : i + length]) for length in (1, 2, 3) for i in range(len(words))]
    spoken = frozenset().union(*(spelling(phrase) for phrase in phrases))
    named = [label for label in getattr(counter, "labels", ()) if spelling(label) & spoken]
    if len(named) != 1:
        what = f"several classes ({', '.join(named)})" if named else "no class that the counter knows"
        raise InputError(f"the prompt names {what}: say which to count with label=")
    return named[0]


def check_number(
    name: str, value: float | None, *, least: float | None = None, above: float | None = None, whole: bool = False
) -> None:
    """Raise InputError unless a value is None or a number in its range, a whole one where that is asked for."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        raise InputError(f"{name} {value!r} is not a {'whole ' if whole else ''}number")
    if not math.isfinite(value) or (least is not None and value < least) or (above is not None and value <= above):
        range_ = f"{least:g} or more" if least is not None else f"a number above {above:g}"
        raise InputError(f"{name} {value} is out of range: use {range_}")
