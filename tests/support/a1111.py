"""How AUTOMATIC1111 reads the weights of a prompt, letter by letter: the oracle of longclip/syntax.py.

Written from what its `modules/prompt_parser.py` does (parse_prompt_attention, version 1.10), with loops where it and
ours have regular expressions. One thing differs on purpose: BREAK keeps no weight, so that brackets reach over it.
"""

import random

ROUND, SQUARE = 1.1, 1 / 1.1
BREAK = None


def read_weights(prompt: str) -> list[list[tuple[str, float]]]:
    """Parts of (text, weight), neighbors of one weight joined, empty texts left out."""
    texts, weights, rounds, squares = [], [], [], []
    at = 0
    while at < len(prompt):
        letter = prompt[at]
        number = _weight_at(prompt, at)
        if letter == "\\":
            following = prompt[at + 1 : at + 2]
            taken = following if following in tuple("\\()[]") else ""
            texts.append(taken)
            weights.append(1.0)
            at += 1 + len(taken)
        elif letter == "(":
            rounds.append(len(texts))
            at += 1
        elif letter == "[":
            squares.append(len(texts))
            at += 1
        elif number is not None:
            value, length = number
            if rounds:
                _multiply(weights, rounds.pop(), value)
            else:
                texts.append(prompt[at : at + length])
                weights.append(1.0)
            at += length
        elif letter == ")" and rounds:
            _multiply(weights, rounds.pop(), ROUND)
            at += 1
        elif letter == "]" and squares:
            _multiply(weights, squares.pop(), SQUARE)
            at += 1
        elif letter in ")]:":
            texts.append(letter)
            weights.append(1.0)
            at += 1
        else:
            end = at
            while end < len(prompt) and prompt[end] not in "\\()[]:":
                end += 1
            for number_of, text in enumerate(_split_breaks(prompt[at:end])):
                if number_of:
                    texts.append(BREAK)
                    weights.append(1.0)
                texts.append(text)
                weights.append(1.0)
            at = end
    for start in rounds:
        _multiply(weights, start, ROUND)
    for start in squares:
        _multiply(weights, start, SQUARE)
    return _parts(texts, weights)


def _multiply(weights: list[float], start: int, factor: float) -> None:
    for index in range(start, len(weights)):
        weights[index] *= factor


def _weight_at(prompt: str, at: int) -> tuple[float, int] | None:
    """(value, length) of ":1.3)" with its blanks."""
    if prompt[at] != ":":
        return None
    head, bracket, _ = prompt[at + 1 : at + 200].partition(")")
    digits = head.strip()
    if not bracket or not digits or set(digits[1:] if digits[0] in "+-" else digits) - set(".0123456789"):
        return None
    try:
        return float(digits), len(head) + 2
    except ValueError:  # where AUTOMATIC1111 ends in an error
        return None


def _split_breaks(text: str) -> list[str]:
    """The texts between words BREAK."""
    parts, begin, at = [], 0, text.find("BREAK")
    while at >= 0:
        end = at + len("BREAK")
        if not _is_word(text[:at][-1:]) and not _is_word(text[end : end + 1]):
            parts.append(text[begin:at])
            begin = end
        at = text.find("BREAK", end)
    return [*parts, text[begin:]]


def _is_word(letter: str) -> bool:
    return letter.isalnum() or letter == "_"


def _parts(texts: list[str | None], weights: list[float]) -> list[list[tuple[str, float]]]:
    parts: list[list[tuple[str, float]]] = [[]]
    for text, weight in zip(texts, weights, strict=True):
        if text is BREAK:
            parts.append([])
        elif text and parts[-1] and abs(parts[-1][-1][1] - weight) < 1e-9:
            parts[-1][-1] = parts[-1][-1][0] + text, weight
        elif text:
            parts[-1].append((text, weight))
    return parts


WORDS = ("cat", "red", "a", "two", ",", "BREAK", "sun", "10", "é", "fox-like", "don't")


def balanced(chance: random.Random, depth: int = 0) -> str:
    """A prompt whose brackets all have partners."""
    parts = []
    for _ in range(chance.randint(1, 4)):
        kind = chance.choice(("word", "word", "round", "weight", "square", "escape")) if depth < 4 else "word"
        inner = "" if kind in ("word", "escape") else balanced(chance, depth + 1)
        weight = chance.choice(("1.3", ".5", "0", "-1", "+2", "1.", " 1.2 "))
        parts.append(
            {
                "word": chance.choice(WORDS),
                "escape": chance.choice((r"\(", r"\)", r"\[", r"\]", "\\\\", r"\x")),
                "round": f"({inner})",
                "weight": f"({inner}:{weight})",
                "square": f"[{inner}]",
            }[kind]
        )
    return chance.choice((" ", " ", "")).join(parts)


def one_lost(chance: random.Random) -> str:
    """A balanced prompt that has lost one bracket."""
    while True:
        prompt = balanced(chance)
        places = [at for at, letter in enumerate(prompt) if letter in "()[]"]
        if places:
            lost = chance.choice(places)
            return prompt[:lost] + prompt[lost + 1 :]


def loose(chance: random.Random) -> str:
    """Words and marks in any order."""
    marks = ("(", ")", "[", "]", ":1.3)", ":", r"\(", "\\", "((", "))", ": .5)", "+")
    return chance.choice(("", " ")).join(chance.choice((*marks, *WORDS)) for _ in range(chance.randint(1, 25)))
