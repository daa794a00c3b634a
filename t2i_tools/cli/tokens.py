"""`t2i tokens`: which words of a prompt each text encoder reads, where its windows end, and what is cut."""

import json
import sys
from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t2i_tools.cli import options
from t2i_tools.errors import UnsupportedModelError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from rich.text import Text

    from t2i_tools.longclip import Ruler

COLOURS = ("cyan", "green")  # of one window and the next
SHOWN = 60  # letters of a prompt that a note quotes


def tokens(
    prompt: Annotated[str, typer.Argument(help="The prompt to measure.", show_default=False)],
    long_prompts: options.LongPrompts = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON: one object an encoder.")] = False,
    model: options.Model = options.BUNDLED,
    config: options.Config = None,
) -> None:
    """Show which words of a prompt each text encoder reads, their weights, where windows end, and what is cut."""
    if long_prompts:
        from t2i_tools.longclip import check_method

        check_method(long_prompts)
    pipe = options.open_model(options.ModelOptions(model, config, device="cpu"))
    from t2i_tools.longclip import token_ruler

    rulers = token_ruler(pipe, prompt, long_prompts)
    if as_json:
        print(json.dumps(list(map(as_dict, rulers)), indent=2))
        return
    from rich.console import Console

    console = Console(highlight=False)
    for ruler in rulers:
        console.print(drawn(ruler), soft_wrap=True)


def as_dict(ruler: "Ruler") -> dict[str, Any]:
    """A ruler for JSON."""
    words = [{**word._asdict(), "tokens": [word.tokens.start, word.tokens.stop]} for word in ruler.words]
    told = {"encoder": ruler.encoder, "window": ruler.window, "windows": ruler.windows, "tokens": ruler.tokens}
    return {**told, "cut": ruler.cut, "words": words}


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


def tell_of_cuts(pipe: "DiffusionPipeline", prompts: Iterable[str]) -> None:
    """Note on stderr which prompts the model does not read to their end."""
    from t2i_tools.longclip import token_ruler

    for prompt in dict.fromkeys(prompts):
        try:
            cut = [ruler for ruler in token_ruler(pipe, prompt) if ruler.cut]
        except UnsupportedModelError:  # it is not known how this pipeline reads
            return
        for ruler in cut[:1]:
            print(
                f"t2i: {ruler.encoder} reads {ruler.tokens} tokens of this prompt and nothing from "
                f"{ruler.cut[:SHOWN]!r} on: --long-prompts chunk reads it all",
                file=sys.stderr,
            )
