"""What the kit knows about an image before it is made, in a line with a button that acts on it (page.js)."""

from functools import cache
from html import escape
from typing import Any

from t2i_tools.bundled import BUNDLED_SIZE, SIZES
from t2i_tools.evaluation.studies.advice import OFF, Advice, Evidence, Point, advise, read_evidence
from t2i_tools.images.number_words import number_word
from t2i_tools.images.sizes import Size, format_size

from .objects import counted_prompt

# Advice -> what it sets in the form of Generate.
SETTINGS: dict[str, dict[str, Any]] = {
    "two_pass": {"two_pass": True, "deep_shrink": False},
    "deep_shrink": {"deep_shrink": True, "two_pass": False},
    "entropy_scaling": {"entropy_scaling": "on", "entropy_rule": "sqrt_log", "entropy_strength": 1},
    "entropy_log": {"entropy_scaling": "on", "entropy_rule": "log", "entropy_strength": 1},
    "entropy_half": {"entropy_scaling": "on", "entropy_rule": "sqrt_log", "entropy_strength": 0.5},
    "entropy_auto": {"entropy_scaling": "on", "entropy_rule": "sqrt_log", "entropy_strength": "auto"},
    "chunk": {"long_prompts": "chunk"},
}
WORDS = {
    "two_pass": "two passes",
    "deep_shrink": "deep shrink",
    "entropy_scaling": "entropy scaling",
    "entropy_log": "logarithmic entropy scaling",
    "entropy_half": "entropy scaling of half the strength",
    "entropy_auto": "entropy scaling of strength auto",
}
FEWEST, MOST = 2, 12  # objects of which the search for an exact count is offered


def size_advice(size: Size | None, is_bundled: bool) -> str:
    """What was measured at a size near this one, (height, width), and the button that uses it; as HTML."""
    if size is None or not is_bundled or size == BUNDLED_SIZE:
        return ""
    advice = advise(_evidence(), size, BUNDLED_SIZE)
    if advice.method is None:
        return _line(f"Nobody has measured what helps at {format_size(size)}.")
    if advice.method == OFF or advice.method not in SETTINGS:
        return _line(f"No advice for {format_size(size)}: {advice.why}.")
    return _line(f"{_figures(advice)}.") + _button("advised", "Use it", f"data-to='{advice.method}'")


def exact_advice(prompt: str) -> str:
    """The search for an exact count, where a prompt asks for a number of things that it knows; as HTML."""
    request = counted_prompt(prompt)
    if request is None or len(request[0]) > 2 or not all(FEWEST <= n <= MOST for n in request[0].values()):
        return ""
    number = " and ".join(number_word(n) for n in request[0].values())
    return _button("exact", f"Make it exactly {number}", f"data-tab='count' data-text='{escape(prompt)}'")


def cut_advice() -> str:
    """The way to read a prompt that is cut; as HTML."""
    return _button("advised", "Read all of it", "data-to='chunk'")


def _figures(advice: Advice) -> str:
    """ "At 256x128, two passes drew the exact count in 33% of 96 images, plain in 2%"."""
    points = {point.method: point for point in advice.points}
    best = points[str(advice.method)]
    of = f" of {best.exact.n} images"
    plain = f", plain in {_share(points[OFF])}" if OFF in points else ""
    return f"At {format_size(best.size)} {WORDS[best.method]} drew the exact count in {_share(best)}{of}{plain}"


def _share(point: Point) -> str:
    return f"{point.exact.estimate:.0%}"


@cache
def _evidence() -> Evidence | None:
    return read_evidence(SIZES) if SIZES.exists() else None


def _line(text: str) -> str:
    return f"<span class='t2i-hint'>{escape(text)}</span> "


def _button(act: str, words: str, more: str) -> str:
    return f"<button type='button' class='t2i-advice' data-act='{act}' {more}>{escape(words)}</button>"
