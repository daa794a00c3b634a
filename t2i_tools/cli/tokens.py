"""`t2i tokens`: which words of a prompt each text encoder reads, where its windows end, and what is cut."""

import json
import sys
from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from t2i_tools.cli import options
from t2i_tools.workflows.open_model import BUNDLED, ModelOptions, open_model
from t2i_tools.workflows.vocabulary import prompt_note

if TYPE_CHECKING:
    from rich.text import Text

    from t2i_tools.longclip import Ruler

COLOURS = ("cyan", "green")  # of one window and the next


def tokens(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The prompt to read; in quotes.", show_default=False)],
    long_prompts: options.LongPrompts = None,
    as_json: options.AsJson = False,
    model: options.Model = BUNDLED,
    config: options.Config = None,
) -> None:
    """Show which words of a prompt each text encoder reads, their weights, where windows end, and what is cut."""
    if long_prompts:
        from t2i_tools.longclip import check_method

        check_method(long_prompts)
    pipe = open_model(ModelOptions(model, config, device="cpu"))
    from t2i_tools.longclip import gathered, token_ruler

    rulers = token_ruler(pipe, prompt, cast("Any", long_prompts))
    print_vocabulary_note(model, [prompt])
    if as_json:
        print(json.dumps(list(map(as_dict, rulers)), indent=2))
        return
    from rich.console import Console

    console = Console(highlight=False)
    for ruler in rulers:
        console.print(drawn(ruler), soft_wrap=True)
    for line in gathered(rulers[0].notes if rulers else ()):
        console.print(f"note: {line}", soft_wrap=True, markup=False)


def as_dict(ruler: "Ruler") -> dict[str, Any]:
    """A ruler for JSON."""
    words = [{**word._asdict(), "tokens": [word.tokens.start, word.tokens.stop]} for word in ruler.words]
    summary = {"encoder": ruler.encoder, "window": ruler.window, "windows": ruler.windows, "tokens": ruler.tokens}
    return {**summary, "cut": ruler.cut, "words": words, "notes": [note._asdict() for note in ruler.notes]}


def drawn(ruler: "Ruler") -> "Text":
    """A ruler in colours: each window in its own, weighted words bold, what is cut struck through in red."""
    from rich.text import Text

    windows = f"{ruler.windows} window{'s' if ruler.windows != 1 else ''} of {ruler.window}"
    text = Text.assemble((ruler.encoder, "bold"), f": {ruler.tokens} tokens, {windows}\n")
    for window, words in groupby((word for word in ruler.words if word.read), lambda word: word.window):
        if window:
            text.append("| ", "bold")
        for word in words:
            weighted = word.weight != 1
            text.append(word.text, f"{'bold ' if weighted else ''}{COLOURS[window % len(COLOURS)]}")
            text.append(f":{word.weight:.3g} " if weighted else " ", "bold" if weighted else "")
    if ruler.cut:
        text.append("\ncut: ", "bold red").append(ruler.cut, "strike red")
    return text


def print_notes(lines: Iterable[str]) -> None:
    """Print notes on stderr."""
    for line in lines:
        print(f"t2i: {line}", file=sys.stderr)


def print_vocabulary_note(model: str, prompts: Iterable[str]) -> None:
    """Note on stderr what of the prompts the model was not trained on, where that is known."""
    if note := prompt_note(model, prompts):
        print(f"t2i: {note}", file=sys.stderr)
