"""The methods of an evaluation that search for the count asked for, each image by a search of its own."""

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
    """Search for an item's image, beginning at its prompt and seed.

    counter: steers the search, and so must not judge. budget: in plain images' worth of denoiser passes. Raises
    InputError, and KeyboardInterrupt where that ends the search: half a search is no result of the method.
    """
    if problem := unsearchable(item):
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
    """What a search says of itself in a row."""
    return {
        "final_seed": result.seeds[0],
        "counted": result.counts[0],
        "trials": len(result.history),
        "stopped": result.stopped,
        "spent": round(result.compute.passes / result.image_passes, 4),
    }


def unsearchable(item: Item) -> str:
    """Why no search can be made for an item, in one line; "" where it can."""
    if item.label is None or not item.count:
        return f"{item.method} searches for a count: give the prompt a class, and a count of 1 or more"
    if item.at_least:
        return f"{item.method} searches for an exact count, and more are as right for {item.prompt!r}: leave it out"
    if item.size and item.fit != "crop":
        return f"{item.method} draws no size that has to be fitted: leave fit {item.fit!r} out"
    if item.method != "best_of" and count_template(item.prompt, item.count) == item.prompt:
        return (
            f"{item.method} takes the place of the number, and {item.prompt!r} does not say {number_word(item.count)}: "
            "write it, or use best_of"
        )
    return ""


def count_template(prompt: str, count: int) -> str:
    """The prompt with "{count}" where it first says the number, in a word or in digits; as it is where it does not."""
    number = rf"(?<![\w-])(?:{number_word(count)}|{count})(?![\w-])"
    return re.sub(number, "{count}", prompt, count=1, flags=re.IGNORECASE)
