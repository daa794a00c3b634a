"""Count searches as methods of an evaluation: each image is the result of a separate search."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from t2i_tools.counting import best_of, optimize_count
from t2i_tools.errors import InputError
from t2i_tools.evaluation.runs.items import Item
from t2i_tools.images.number_words import number_word

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.counting import Result
    from t2i_tools.detectors import Counter
    from t2i_tools.evaluation.runs.rows import SearchFields


def search_item(pipe: DiffusionPipeline, item: Item, counter: Counter, budget: float) -> Result:
    """Search for an image with exactly `item.count` objects, starting from the item's prompt and seed.

    counter: the detector that steers the search; it must not be the judge. budget: the most the search may cost, in
    plain images' worth of denoiser passes. Raises InputError if the item cannot be searched, and KeyboardInterrupt if
    the search was interrupted, because a partial search is not a result.
    """
    if problem := search_problem(item):
        raise InputError(problem)
    options: dict[str, Any] = {"label": item.label, "seeds": (item.seed,), "budget": budget, "size": item.size}
    options |= {"steps": item.steps, "guidance": item.guidance, "negative": item.negative}
    if item.method == "best_of":
        result = best_of(pipe, item.prompt, item.count or 0, counter, **options)
    else:
        template = count_template(item.prompt, item.count or 0)
        result = optimize_count(pipe, template, item.count, counter, method=item.method, **options).run()
    if result.stopped == "interrupted":
        raise KeyboardInterrupt
    return result


def search_fields(result: Result) -> SearchFields:
    """Return the fields that a search adds to the row of its image."""
    return {
        "final_seed": result.seeds[0],
        "counted": result.counts[0],
        "trials": len(result.history),
        "stopped": result.stopped,
        "spent": round(result.compute.passes / result.image_passes, 4),
    }


def search_problem(item: Item) -> str:
    """Return why no search is possible for this item, in one line, or "" if one is possible."""
    if item.label is None or not item.count:
        return f"{item.method} searches for a count: give the prompt a class, and a count of 1 or more"
    if item.at_least:
        return f"{item.method} searches for an exact count, but {item.prompt!r} accepts more: remove this prompt"
    if item.size and item.fit != "crop":
        return f"{item.method} works only with fit 'crop', not {item.fit!r}: leave fit out"
    if item.method != "best_of" and count_template(item.prompt, item.count) == item.prompt:
        return (
            f"{item.method} replaces the number in the prompt, but {item.prompt!r} does not contain "
            f"{number_word(item.count)!r}: add it, or use best_of"
        )
    return ""


def count_template(prompt: str, count: int) -> str:
    """Replace the first mention of the number, in words or digits, with "{count}"; unchanged if there is none."""
    number = rf"(?<![\w-])(?:{number_word(count)}|{count})(?![\w-])"
    return re.sub(number, "{count}", prompt, count=1, flags=re.IGNORECASE)
