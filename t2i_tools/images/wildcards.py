"""Wildcards in a prompt: {red|blue} is one of the two, __color__ one line of color.txt, both drawn by a seed."""

import random
import re
from pathlib import Path

from t2i_tools.errors import InputError

FILE = re.compile(r"__([^\W_][\w/-]{0,80}?)__")
BRACES = re.compile(r"\{([^{}]*)\}")  # innermost ones
OTHER = re.compile(r"\s*[0-9.]+::|\s*[0-9-]*\$\$")  # weights and numbers of Dynamic Prompts
ROUNDS = 100  # of filling in, for lists that name each other
LONGEST = 100_000  # letters of what comes out


def fill_wildcards(text: str, chance: random.Random, folder: str | Path | None = None) -> str:
    """Fill the wildcards of a prompt, from the first to the last, those in what was filled in as well.

    Args:
        text: A prompt; "{count}" without a bar is none of ours and stays.
        chance: Draws; the same seed and files give the same prompt.
        folder: Where NAME.txt lies, one text per line, blank lines and those that begin with # left out.

    Returns:
        The prompt in words.

    Raises:
        InputError: A list is missing, empty or names itself, or the syntax is one that is not read here.
    """
    lists: dict[str, list[str]] = {}

    def drawn(match: re.Match[str]) -> str:
        if match[1] not in lists:
            lists[match[1]] = _lines(match[1], folder)
        return chance.choice(lists[match[1]])

    for _ in range(ROUNDS):
        filled = FILE.sub(drawn, text)
        filled = BRACES.sub(lambda match: chance.choice(_options(match[1])) if "|" in match[1] else match[0], filled)
        if filled == text:
            return text
        text = filled
        if len(text) > LONGEST:
            break
    raise InputError(f"the wildcards of {text[:40]!r}... refer to each other in a circle: remove one of the references")


def names_list(text: str) -> bool:
    """Whether a prompt names a list in a file."""
    return bool(FILE.search(text))


def has_wildcards(text: str) -> bool:
    """Whether a prompt has something to draw."""
    return bool(FILE.search(text)) or any("|" in match[1] for match in BRACES.finditer(text))


def _options(text: str) -> list[str]:
    options = text.split("|")
    if any(map(OTHER.match, options)):
        raise InputError(f"{{{text}}}: weights (0.5::) and numbers (2$$) are not read here, only {{one|other}}")
    return options


def _lines(name: str, folder: str | Path | None) -> list[str]:
    if folder is None:
        raise InputError(f"__{name}__ is drawn from a file: give its folder by --wildcards FOLDER")
    path = Path(folder).expanduser() / f"{name}.txt"
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text") from error
    except OSError as error:
        raise InputError(f"__{name}__: cannot read {path}: {error.strerror}") from error
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise InputError(f"__{name}__: {path} has no line to choose from")
    return lines
