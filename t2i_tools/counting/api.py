"""The public verbs: a search of any method, and best-of-N, which every other method has to beat."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from t2i_tools.counting.options import CountOptions, Goal, check_counter, find_goal
from t2i_tools.counting.presets import preset_values
from t2i_tools.counting.results import Result, Step
from t2i_tools.counting.search import Search
from t2i_tools.counting.token import CountToken, TokenSettings, fill_template, start_token
from t2i_tools.detectors import Counter, Guide
from t2i_tools.errors import UnsupportedModelError
from t2i_tools.images.number_words import number_word
from t2i_tools.images.sizes import Size

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import nn

    from t2i_tools.counting.clip_term import ClipTerm
    from t2i_tools.counting.look_record import LookRecords


def optimize_count(
    pipe: DiffusionPipeline,
    template: str,
    n: int | None = None,
    counter: Counter | None = None,
    *,
    label: str | None = None,
    counts: Mapping[str, int] | None = None,
    seeds: Sequence[int] = (0,),
    options: CountOptions | None = None,
    method: str | None = None,
    budget: float | None = None,
    patience: int | None = None,
    explore: int | None = None,
    size: Size | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    negative: str | None = None,
    lr: float | None = None,
    noise_lr: float | None = None,
    max_norm: float | None = None,
    grad_steps: int | None = None,
    grad_where: str | None = None,
    scale: float | None = None,
    focus: bool | None = None,
    guide: Guide | None = None,
    clip: ClipTerm | None = None,
    clip_weight: float | None = None,
    start: str | None = None,
    number: bool | None = None,
    vectors: int | None = None,
    encoders: Sequence[str] | None = None,
    batch: int | None = None,
    checkpointing: bool | None = None,
    vae: nn.Module | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    early_look: bool | LookRecords | None = None,
    look_at: float | None = None,
    look_cost: float | None = None,
    weight_decay: float | None = None,
    clip_text: str | None = None,
    best_by: str | None = None,
    max_trials: int | None = None,
    keep: str | None = None,
    preset: str | None = None,
) -> Search:
    """Search for images that hold exactly n objects.

    Iterate over the search for one `Step` per trial, or call its `run()` for the `Result`: images, token, history.
    The arguments from `method` on are fields of `CountOptions`, which says what each does; those that are None are
    taken from `options`.

    Args:
        pipe: A text-to-image pipeline.
        template: The prompt, "a photo of {count} apples"; "{count}" becomes the token's word, or the number's.
        n: How many objects.
        counter: A detector that counts them; where it has a `potential` it also gives the gradient.
        label: The counter's name for the objects; read in the template when None.
        counts: Several classes instead of n and label: {"bottle": 6, "glass": 2} with the template "{bottle} bottles
            and {glass} glasses", one token each.
        seeds: One, or several for a token that is to be used again; (0,) by default.
        options: The settings that the following arguments change; `CountOptions()` when None.
        method: "bisection+best_of" by default, see `METHODS`.
        budget: In plain images' worth of denoiser passes; 30 by default.
        patience: Trials without a better one that end the search or the round; 15 by default.
        explore: Trials per round; 4 by default.
        size: (height, width) in pixels; the pipeline's own when None.
        steps: Denoising steps; the pipeline's own number when None.
        guidance: The guidance scale; the pipeline's own when None.
        negative: The negative prompt; none by default.
        lr: Learning rate of the token, in root mean squares of an embedding; 0.3 by default.
        noise_lr: Step of the noise, as a share of its length; 0.25 by default.
        max_norm: Longest gradient; 1 by default.
        grad_steps: Timesteps with a gradient; 4 by default, 1 for the noise alone.
        grad_where: Which timesteps: "first", "last", "spread" or "all".
        scale: Static potential per object; follows the detector when None.
        focus: Whether the gradient comes only from where an object has to go or to come; True by default.
        guide: A detector with a potential, where `counter` has none.
        clip: A CLIP term of the loss.
        clip_weight: Its weight; 5 by default.
        start: The text that the token starts from; the number's word when None.
        number: Whether the number's word follows the token; False by default.
        vectors: Vectors per token and text encoder; as many as its start has tokens when None.
        encoders: Text encoders to learn for; all when None.
        batch: Images at once; 1 by default.
        checkpointing: Gradient checkpointing; False by default.
        vae: Another VAE for the images with a gradient.
        checkpoint: A file from which a stopped search goes on.
        early_look: Count the predicted image half-way and end a trial without a chance; False by default.
        look_at: Share of the steps before the look; 0.5 by default.
        look_cost: Of a look in images' worth; measured when None.
        weight_decay: Of AdamW; 0 by default.
        clip_text: "prompt" (the default) or "label", for the CLIP term.
        best_by: "error" (the default) or "loss".
        max_trials: So many trials at most.
        keep: "image" stays on the first seed.
        preset: "paper" takes the settings of Zafar et al., see `presets.py`; what is given beside it goes before.

    Returns:
        The search, which has not begun yet.

    Raises:
        InputError: A value is out of range, or the goal is unclear.
        UnsupportedModelError: The pipeline cannot do what the method needs.

    Source: Zafar et al. 2024, arXiv 2408.11721, for the methods with "token"; bisection is ours.

    Example:
        >>> pipe, counter = t2i.load_bundled(), t2i.load_bundled_counter()
        >>> search = t2i.optimize_count(pipe, "a photo of {count} cats", 2, counter, budget=2, steps=4)
        >>> search.run().images[0].save("two_cats.png")
    """
    chosen = with_values(options, preset_values(preset, _option_values(locals())))
    counter = check_counter(counter)
    goal = find_goal(template, n, label, counts, counter)
    names = {label: "count" if counts is None else label for label in goal.counts}
    plain = fill_template(template, {names[label]: number_word(n) for label, n in goal.counts.items()})
    if chosen.wordless:
        return Search(pipe, (plain, plain), goal, counter, [], seeds, chosen)
    try:
        tokens = start_tokens(pipe, template, goal, seeds, chosen)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{error}; the methods best_of and noise need no word") from error
    spoken = {names[token.label]: token.spoken() for token in tokens}
    return Search(pipe, (fill_template(template, spoken), plain), goal, counter, tokens, seeds, chosen)


def best_of(
    pipe: DiffusionPipeline,
    prompt: str,
    n: int,
    counter: Counter,
    *,
    label: str | None = None,
    seeds: Sequence[int] = (0,),
    on_step: Callable[[Step], object] | None = None,
    options: CountOptions | None = None,
    budget: float | None = None,
    patience: int | None = None,
    size: Size | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    negative: str | None = None,
    batch: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    early_look: bool | LookRecords | None = None,
    look_at: float | None = None,
    look_cost: float | None = None,
) -> Result:
    """Draw a prompt with one seed after the other until the counter sees n objects, or the budget is spent.

    Args:
        pipe: A text-to-image pipeline.
        prompt: As a person writes it, "a photo of seven apples".
        n: How many objects.
        counter: A detector that counts them.
        label: The counter's name for them; read in the prompt when None.
        seeds: The first trial's; (0,) by default.
        on_step: Called with every `Step`.
        options: The settings that the following arguments change; `CountOptions()` when None.
        budget: In images; 30 by default.
        patience: Trials without a better one that end the search; 15 by default.
        size: (height, width) in pixels; the pipeline's own when None.
        steps: Denoising steps; the pipeline's own number when None.
        guidance: The guidance scale; the pipeline's own when None.
        negative: The negative prompt; none by default.
        batch: Images at once, where there are several seeds.
        checkpoint: A file from which a stopped search goes on.
        early_look: Count the predicted image half-way and end a trial without a chance; False by default.
        look_at: Share of the steps before the look; 0.5 by default.
        look_cost: Of a look in images' worth; measured when None.

    Returns:
        The best images, and the history of the search.

    Raises:
        InputError: A value is out of range, or the goal is unclear.
        UnsupportedModelError: The pipeline cannot do what the options ask for.

    Example:
        >>> pipe, counter = t2i.load_bundled(), t2i.load_bundled_counter()
        >>> result = t2i.best_of(pipe, "a photo of two cats", 2, counter, budget=2, steps=4)
        >>> result.images[0].save("two_cats.png")
    """
    chosen = with_values(options, {**_option_values(locals()), "method": "best_of"})
    goal = find_goal(prompt, n, label, None, check_counter(counter))
    return Search(pipe, (prompt, prompt), goal, counter, [], seeds, chosen).run(on_step)


def with_values(options: CountOptions | None, values: Mapping[str, Any]) -> CountOptions:
    """Return the options with these values in their place.

    Raises:
        InputError: A value is out of range.
    """
    return replace(options or CountOptions(), **values)


def _option_values(arguments: Mapping[str, Any]) -> dict[str, Any]:
    known = (name for name in CountOptions.__dataclass_fields__ if name in arguments)
    return {name: arguments[name] for name in known if arguments[name] is not None}


def start_tokens(
    pipe: DiffusionPipeline, template: str, goal: Goal, seeds: Sequence[int], options: CountOptions
) -> list[CountToken]:
    """Make a token per class, whose settings say what it is learned with."""
    import diffusers
    import torch

    from t2i_tools._version import __version__

    versions = {"t2i-tools": __version__, "diffusers": diffusers.__version__, "torch": torch.__version__}
    settings = TokenSettings(
        template=template,
        seeds=list(seeds),
        method=options.method,
        steps=options.steps,
        guidance=options.guidance,
        lr=options.lr,
        grad_steps=options.graph_steps,
        grad_where=options.grad_where,
        start=options.start,
        number=options.number,
        versions=versions,
    )
    tokens = []
    for label, n in goal.counts.items():
        word = None if len(goal.counts) == 1 else f"<count-{n}-{'-'.join(label.lower().split())}>"
        start = options.start or number_word(n)
        token = start_token(pipe, n, label, word=word, start=start, length=options.vectors)
        token.settings = settings
        tokens.append(token)
    return tokens
