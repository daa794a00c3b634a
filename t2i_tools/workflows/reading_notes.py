"""What of a prompt is not read, does not act, or is read as words that were meant as syntax: one line each."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from t2i_tools.errors import UnsupportedModelError
from t2i_tools.longclip import Ruler, gathered, has_syntax, parse_prompt, token_ruler

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SHOWN = 60  # letters of a prompt that a note quotes
PLACE = re.compile(r"\{\w[\w -]{0,40}\}")
logger = logging.getLogger("t2i_tools.longclip")


def reading_notes(pipe: DiffusionPipeline, text: str, method: str | None, what: str = "prompt") -> list[str]:
    """The notes of a prompt or negative prompt, cuts of every text encoder first.

    Args:
        pipe: The pipeline, whose encoders are not run.
        text: The prompt.
        method: The way in which long prompts are to be read; None: as the plain pipeline does.
        what: What the text is called.

    Returns:
        One line per note, none of them about flags that would not help.
    """
    try:
        notes = [
            _cut(pipe, ruler, text, method, what) for ruler in token_ruler(pipe, text, cast("Any", method)) if ruler.cut
        ]
    except UnsupportedModelError:  # it is not known how this pipeline reads
        notes = []
    if method:
        notes += [f"in this {what}, {line}" for line in gathered(parse_prompt(text).notes)]
    elif has_syntax(text):
        notes.append(
            f"the brackets, tags or BREAK of this {what} are read as words: with --long-prompts chunk weights and "
            "BREAK act, and a line says what does not"
        )
    return notes


def place_note(text: str) -> list[str]:
    """A note on "{count}" in a prompt that nothing has filled."""
    places = dict.fromkeys(PLACE.findall(text))
    return [f"{', '.join(places)} of this prompt is read as it stands: no --count-token fills it"] if places else []


@contextmanager
def without_warnings() -> Iterator[None]:
    """While it lasts, what the notes have said is not logged again."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def all_notes(pipe: DiffusionPipeline, texts: Iterable[tuple[str, str | None, str]]) -> list[str]:
    """The notes of several (text, method, what it is called), each line once."""
    lines = (line for text, method, what in dict.fromkeys(texts) for line in reading_notes(pipe, text, method, what))
    return list(dict.fromkeys(lines))


def _cut(pipe: DiffusionPipeline, ruler: Ruler, text: str, method: str | None, what: str) -> str:
    read = f"{ruler.encoder} reads {ruler.tokens} tokens of this {what} and nothing from {ruler.cut[:SHOWN]!r} on"
    better = next((one for one in ("chunk", "stretch") if _whole(pipe, ruler.encoder, text, one)), None)
    return f"{read}: --long-prompts {better} reads it all" if better else read


def _whole(pipe: DiffusionPipeline, encoder: str, text: str, method: str) -> bool:
    return any(ruler.encoder == encoder and not ruler.cut for ruler in token_ruler(pipe, text, cast("Any", method)))
