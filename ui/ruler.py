"""Which words of a prompt are read, as HTML."""

from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

from t2i_tools.errors import T2IError
from t2i_tools.workflows.vocabulary import prompt_note

from .advice import cut_advice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusers import DiffusionPipeline

    from t2i_tools.longclip import Ruler
    from t2i_tools.longclip.ruler import RulerWord


def ruler_html(pipe: "DiffusionPipeline | None", prompt: str, method: str | None) -> str:
    """Per encoder how many tokens are read, and where that is not all in one window, the words in the colors of their
    windows, weights below them, what is cut struck through; nothing without a model."""
    if pipe is None or not prompt:
        return ""
    from t2i_tools.longclip import gathered, has_syntax, token_ruler

    try:
        rulers = token_ruler(pipe, prompt, cast("Any", method))
    except T2IError as error:
        return f"<p class='t2i-hint'>{escape(str(error))}</p>"
    notes = gathered(rulers[0].notes) if rulers else []
    if not method and has_syntax(prompt):
        notes = ['brackets, tags and BREAK are read as plain words, as chosen under "Long prompt, count token"']
    hints = (f"<p class='t2i-ruler t2i-hint'>{escape(note)}</p>" for note in notes)
    return "".join([*map(_line, rulers), *hints])


def vocabulary_html(model: str, *prompts: str) -> str:
    """What of the prompts the model was not trained on, where that is known."""
    note = prompt_note(model, prompts)
    return f"<p class='t2i-hint'>{escape(note[0].upper() + note[1:])}.</p>" if note else ""


def _line(ruler: "Ruler") -> str:
    room = ruler.windows * (ruler.window - 2)
    line = f"{ruler.tokens} of {room} tokens" + (f" in {ruler.windows} windows" if ruler.windows > 1 else "")
    if ruler.windows == 1 and not ruler.cut and all(word.weight == 1 for word in ruler.words):
        return f"<p class='t2i-ruler t2i-hint'>{line}</p>"
    advice = f" {cut_advice()}" if ruler.cut else ""
    words = " ".join(_group(read, window, list(group)) for (read, window), group in groupby(ruler.words, _place))
    region = "role='region' aria-label='What is read of the prompt' tabindex='0'"
    return f"<p class='t2i-ruler'>{line}{advice}</p><p class='t2i-ruler t2i-words-read' {region}>{words}</p>"


def _place(word: "RulerWord") -> tuple[bool, int]:
    return word.read, word.window if word.read else 0


def _group(read: bool, window: int, words: "Sequence[RulerWord]") -> str:
    """Words of one window in its color, or those that are not read, struck through."""
    text = " ".join(map(_word, words))
    if not read:
        return f"<s title='not read'>{text}</s>"
    return f"<mark class='t2i-window-{window % 2}' title='window {window + 1}'>{text}</mark>"


def _word(word: "RulerWord") -> str:
    return escape(word.text) if word.weight == 1 else f"<b>{escape(word.text)}<sub>{word.weight:.3g}</sub></b>"
