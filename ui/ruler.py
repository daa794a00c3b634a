"""Which words of a prompt are read, as HTML."""

from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from t2i_tools.errors import T2IError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.longclip import Ruler


def ruler_html(pipe: "DiffusionPipeline | None", prompt: str, method: str | None) -> str:
    """One line an encoder: windows side by side, what is cut struck through; nothing without a model."""
    if pipe is None or not prompt:
        return ""
    from t2i_tools.longclip import token_ruler

    try:
        rulers = token_ruler(pipe, prompt, method)
    except T2IError as error:
        return f"<p class='t2i-hint'>{escape(str(error))}</p>"
    return "".join(map(_line, rulers))


def _line(ruler: "Ruler") -> str:
    room = ruler.windows * (ruler.window - 2)
    told = f"{ruler.tokens} of {room} tokens" + (f" in {ruler.windows} windows" if ruler.windows > 1 else "")
    if not ruler.cut:
        read = groupby((word for word in ruler.words if word.read), lambda word: word.window)
        ends = [" ".join(word.text for word in words).split(" ")[-1] for _, words in read]
        more = f"; windows end after {', '.join(ends)}" if ruler.windows > 1 else ""
        return f"<p class='t2i-ruler t2i-hint'>{escape(told + more)}</p>"
    return f"<p class='t2i-ruler'>{escape(told)}. Not read: <s>{escape(ruler.cut)}</s></p>"
