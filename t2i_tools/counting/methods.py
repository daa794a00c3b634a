"""The public verbs: a search of any method, and best-of-N, which every other method has to beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from t2i_tools.counting.options import Goal, Options, find_goal
from t2i_tools.counting.results import Result, Step
from t2i_tools.counting.search import Search
from t2i_tools.counting.token import CountToken, fill_template, number_word, start_token
from t2i_tools.detectors import Counter
from t2i_tools.errors import UnsupportedModelError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def optimize_count(
    pipe: DiffusionPipeline,
    template: str,
    n: int | None = None,
    counter: Counter | None = None,
    *,
    label: str | None = None,
    counts: Mapping[str, int] | None = None,
    seeds: Sequence[int] = (0,),
    **options: Any,
) -> Search:
    """Search for pictures that hold exactly n objects (Zafar et al. 2024, arXiv 2408.11721).

    Iterate over what is returned for one `Step` a trial, or call its `run()` for the `Result`: images, token, history.

    template: "a photo of {count} apples"; "{count}" becomes the token's word, see `Options.number`. counts, for n and
    label: {"bottle": 6, "glass": 2} with the template "{bottle} bottles and {glass} glasses", one token each.
    counter: finds the objects; where it has a `potential` it also gives the gradient. label: the counter's name for
    them, found in the template when None. seeds: one, as in the paper, or several for a token to be used again.
    options: fields of `Options`, among them method, budget, steps, guidance, size and checkpoint.
    Raises InputError or UnsupportedModelError.
    """
    chosen = Options.of(options)
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
    **options: Any,
) -> Result:
    """Draw a prompt with other and other seeds until the counter sees n objects, or `budget` pictures are drawn.

    prompt: as a person writes it, "a photo of seven apples". on_step: called with every `Step`. For the rest see
    `optimize_count`. Raises InputError.
    """
    chosen = Options.of({"method": "best_of", **options})
    goal = find_goal(prompt, n, label, None, counter)
    return Search(pipe, (prompt, prompt), goal, counter, [], seeds, chosen).run(on_step)


def start_tokens(
    pipe: DiffusionPipeline, template: str, goal: Goal, seeds: Sequence[int], options: Options
) -> list[CountToken]:
    """A token a class, which says in its settings what it is learned with."""
    import diffusers
    import torch

    from t2i_tools import __version__

    versions = {"t2i-tools": __version__, "diffusers": diffusers.__version__, "torch": torch.__version__}
    names = ("method", "steps", "guidance", "lr", "grad_steps", "grad_where", "start", "number", "vectors")
    about = {name: getattr(options, name) for name in names}
    about["grad_steps"] = options.graph_steps
    settings = {"template": template, "seeds": list(seeds), **about, "versions": versions}
    tokens = []
    for label, n in goal.counts.items():
        word = None if len(goal.counts) == 1 else f"<count-{n}-{'-'.join(label.lower().split())}>"
        start = options.start or number_word(n)
        token = start_token(pipe, n, label, word=word, start=start, rows=options.vectors)
        token.settings = settings
        tokens.append(token)
    return tokens
