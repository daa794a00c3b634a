"""What the bundled model was trained to read, and the one line that says what of a prompt it was not."""

import re
from itertools import pairwise

from t2i_tools.bundled.scenes import COLOURS, COLUMNS, LABELS, MAX_COUNT, ROWS, plural
from t2i_tools.images.number_words import number_word

EDITION = 1  # of the captions that the UNet was trained on
FEW_STEPS_EDITION = 2  # of those of its four-step form: "one apple" is only in the second
OBJECTS = frozenset(word for label in LABELS for word in (label, plural(label)))
COUNTS = frozenset(map(number_word, range(2, MAX_COUNT + 1)))
PLACES = frozenset((*filter(None, (*ROWS, *COLUMNS)), "far", "middle"))
WORD = re.compile(r"[^\W_]+")
SENTENCE = frozenset(WORD.findall("a an the and of on with at in is number some many photo picture background"))
HARMLESS = frozenset(  # never trained, and nothing is lost where they are not understood
    WORD.findall(
        "i me my we please draw show make create want this that these those there it are be to image images drawing "
        "illustration emoji emojis"
    )
)
KNOWN = OBJECTS | COUNTS | PLACES | SENTENCE | HARMLESS | set(COLOURS)
# Names of tokens, fields, weights of (word:1.3), and the two words of the prompt syntax.
NOT_WORDS = re.compile(r"<[^<>]*>|\{[^{}]*\}|:\s*[+-]?[.\d]+\s*\)|\b(?:BREAK|AND)\b")
SHOWN, LONGEST = 5, 24


def unknown_words(prompt: str, edition: int = EDITION) -> tuple[str, ...]:
    """What of a prompt the bundled model was not trained on, each once, in the order of the prompt.

    Numbers are known from 1 to 12. A color is known as the background's: "red apples" are unknown together.

    Args:
        prompt: The prompt as the user wrote it. Names in "<>" and "{}" and the weights of "(word:1.3)" are left out.
        edition: Of the captions that it was trained on, EDITION by default; from the second one on it knows "one".

    Returns:
        The words in lower case, empty when all is known.
    """
    words = WORD.findall(NOT_WORDS.sub(" ", prompt).lower())
    known = KNOWN if edition == 1 else KNOWN | {number_word(1)}
    unknown = []
    for word, following in pairwise([*words, ""]):
        if word in COLOURS and following in OBJECTS:
            unknown.append(f"{word} {following}")
        elif word not in known and not _known_number(word):
            unknown.append(word)
    return tuple(dict.fromkeys(unknown))


def vocabulary_note(*prompts: str, edition: int = EDITION) -> str | None:
    """One line that says what of the prompts the bundled model was not trained on, and what it draws.

    Args:
        prompts: Each as for `unknown_words`.
        edition: As for `unknown_words`.

    Returns:
        The line without an end, None when all is known.
    """
    unknown = tuple(dict.fromkeys(word for prompt in prompts for word in unknown_words(prompt, edition)))
    if not unknown:
        return None
    if unknown == ("one",):
        return "the bundled model was not trained on 'one': write 'an apple' or '1 apple'"
    named = ", ".join(repr(word if len(word) <= LONGEST else word[: LONGEST - 3] + "...") for word in unknown[:SHOWN])
    more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
    objects = ", ".join(map(plural, LABELS[:-1])) + f" or {plural(LABELS[-1])}"
    colours = ", ".join(list(COLOURS)[:-1]) + f" or {list(COLOURS)[-1]}"
    draws = f"it draws 1 to {MAX_COUNT} {objects} on a {colours} background"
    return f"the bundled model was not trained on {named}{more}: {draws}"


def _known_number(word: str) -> bool:
    return word.isdecimal() and len(word) <= 2 and 1 <= int(word) <= MAX_COUNT
