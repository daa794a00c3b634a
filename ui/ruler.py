"""Which words of a prompt are read, as HTML."""

from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

from t2i_tools.errors import T2IError
from t2i_tools.workflows.vocabulary import prompt_note

from .advice import cut_advice

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.longclip import Ruler


def ruler_html(pipe: "DiffusionPipeline | None", prompt: str, method: str | None) -> str:
    """One line per encoder: windows side by side, what is cut struck through; nothing without a model."""
    if pipe is None or not prompt:
        return ""
    from t2i_tools.longclip import gathered, has_syntax, token_ruler

    try:
        rulers = token_ruler(pipe, prompt, cast("Any", method))
    except T2IError as error:
        return f"<p class='t2i-hint'>{escape(str(error))}</p>"
    notes = gathered(rulers[0].notes) if rulers else []
    if not method and has_syntax(prompt):
        notes = [
            "brackets, tags and BREAK are read as words: choose a way to read long prompts, and weights and BREAK act"
        ]
    hints = (f"<p class='t2i-ruler t2i-hint'>{escape(note)}</p>" for note in notes)
    return "".join([*map(_line, rulers), *hints])


def vocabulary_html(model: str, *prompts: str) -> str:
    """What of the prompts the model was not trained on, where that is known."""
    note = prompt_note(model, prompts)
    return f"<p class='t2i-hint'>{escape(note[0].upper() + note[1:])}.</p>" if note else ""


def _line(ruler: "Ruler") -> str:
    room = ruler.windows * (ruler.window - 2)
    line = f"{ruler.tokens} of {room} tokens" + (f" in {ruler.windows} windows" if ruler.windows > 1 else "")
    if not ruler.cut:
        read = groupby((word for word in ruler.words if word.read), lambda word: word.window)
        ends = [" ".join(word.text for word in words).split(" ")[-1] for _, words in read]
        more = f"; windows end after {', '.join(ends)}" if ruler.windows > 1 else ""
        return f"<p class='t2i-ruler t2i-hint'>{escape(line + more)}</p>"
    return f"<p class='t2i-ruler'>{escape(line)}. Not read: <s>{escape(ruler.cut)}</s> {cut_advice()}</p>"
