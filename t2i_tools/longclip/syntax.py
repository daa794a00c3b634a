r"""The prompt syntax of AUTOMATIC1111: (word:1.3), (word), [word], BREAK, and what of it does not act here.

Three steps, each linear in the prompt's length: `_tokens` cuts the text at its marks, `_Brackets` finds what each pair
multiplies and what is left out, `_pieces` puts text and weights together.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

STEP = 1.1
DEPTH = 100  # of nested brackets; 1.1 ** 100 is far beyond any use
LIMIT = 1000.0  # of a weight: more leaves the range of half precision
MARK = re.compile(
    r"""\\ (?P<escaped>[\\()\[\]]?)
    | (?P<tag> <\w{1,40} : [^<>]+ >)
    | (?P<open> [(\[])
    | : \s* (?P<weight> [+-]? [.0-9]{1,20}) \s* \)
    | (?P<close> [)\]])
    | (?P<separator> [:|])
    | (?P<new> \bBREAK\b)
    | (?P<mix> \bAND\b)""",
    re.VERBOSE,
)
NUMBER = re.compile(r"\s*[+-]?(?:[0-9]{1,20}\.?[0-9]{0,20}|\.[0-9]{1,20})\s*")
LONG_NUMBER = re.compile(r"\s*[+-]?[.0-9]{21,}\s*")
TAG = "taken out: a tag loads nothing here, load a LoRA by its file"
MIX = "read as a word: prompts are not mixed here"
SCHEDULE = "changes nothing during the steps here: its first words are read throughout"
ODD = "no number that a weight can be: read as words"
OPEN = "never closed: it acts to the end of the prompt"
DEEP = f"brackets deeper than {DEPTH} do not act"
HELD = f"weights are held within {LIMIT:g} and -{LIMIT:g}"


class Piece(NamedTuple):
    """A stretch of text and its weight."""

    text: str
    weight: float = 1.0


class Note(NamedTuple):
    """Something in a prompt that does not act as it would in AUTOMATIC1111, and what becomes of it."""

    text: str
    reason: str

    def __str__(self) -> str:
        return f"{self.text!r} {self.reason}"


class Parsed(NamedTuple):
    """A prompt without its syntax. parts: what stands between its BREAKs, each as pieces of one weight."""

    parts: list[list[Piece]]
    notes: tuple[Note, ...] = ()


class Token(NamedTuple):
    """A mark or a stretch of text. kind: "text" or the name of the mark's group in MARK."""

    kind: str
    text: str
    weight: float = 1.0


def parse_prompt(prompt: str) -> Parsed:
    r"""Read a prompt as AUTOMATIC1111 does.

    "(word:1.3)" multiplies the weight by 1.3, "(word)" by 1.1, "[word]" divides it by 1.1; brackets that nest multiply,
    one that is never closed acts to the end, and round and square ones are paired without regard to each other.
    A backslash makes the next bracket a plain one, and is read nowhere else. BREAK begins a part, also inside brackets,
    which go on acting behind it (there AUTOMATIC1111 reads the word BREAK, which nobody means).

    What acts in AUTOMATIC1111 alone is noted: "<lora:name:1>" is taken out, "[from:to:0.5]" and "[one|other]" are read
    as the first that has words, AND as a word.

    Args:
        prompt: The prompt as the user wrote it, of any length.

    Returns:
        The parts and their pieces, and one note per thing that does not act.
    """
    tokens = list(_tokens(prompt))
    brackets = _Brackets(tokens)
    notes = [Note(token.text, {"tag": TAG, "mix": MIX}[token.kind]) for token in tokens if token.kind in ("tag", "mix")]
    parts, held = _pieces(tokens, brackets)
    notes += brackets.notes + held
    return Parsed(parts, tuple(dict.fromkeys(notes)))


def has_syntax(prompt: str) -> bool:
    """Whether a prompt has weights, BREAK or tags, that a tokenizer by itself would read as words."""
    parsed = parse_prompt(prompt)
    tags = any(note.reason in (TAG, SCHEDULE, MIX) for note in parsed.notes)
    return tags or len(parsed.parts) > 1 or any(weight != 1 for part in parsed.parts for _, weight in part)


def gathered(notes: tuple[Note, ...], shown: int = 3) -> list[str]:
    """One line per reason, which names the first `shown` of what it is about."""
    by_reason = defaultdict(list)
    for note in notes:
        by_reason[note.reason].append(repr(note.text if len(note.text) <= 60 else note.text[:57] + "..."))
    return [
        f"{', '.join(texts[:shown])}{f' and {len(texts) - shown} more' if len(texts) > shown else ''}: {reason}"
        for reason, texts in by_reason.items()
    ]


def _tokens(prompt: str) -> Iterator[Token]:
    """The prompt in pieces, none of it lost."""
    end = 0
    for match in MARK.finditer(prompt):
        if match.start() > end:
            yield Token("text", prompt[end : match.start()])
        end, kind = match.end(), match.lastgroup
        if kind == "escaped":
            yield Token("text", match["escaped"])
        elif kind == "weight":
            with suppress(ValueError):  # 1.2.3
                yield Token("close", match[0], float(match["weight"]))
                continue
            yield Token("odd", match[0][:-1])
            yield Token("close", ")", STEP)
        else:
            assert kind is not None  # each mark has a name
            yield Token(kind, match[0], STEP)
    if end < len(prompt):
        yield Token("text", prompt[end:])


class _Open(NamedTuple):
    """A bracket that waits for its partner. other: how many of the other kind were open before it."""

    at: int
    other: int
    separators: list[int]


class _Brackets:
    """What the brackets of a prompt do. spans: (first token, token behind the last, factor). dropped: ranges left out.

    plain: the brackets without a partner, which are text.
    """

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.spans: list[tuple[int, int, float]] = []
        self.dropped: list[tuple[int, int]] = []
        self.plain: set[int] = set()
        self.notes: list[Note] = []
        self._stacks: dict[str, list[_Open | None]] = {"(": [], "[": []}
        for at, token in enumerate(tokens):
            if token.kind == "open":
                self._open(at, token.text)
            elif token.kind == "close":
                self._close(at, token)
            elif token.kind == "separator":
                self._separate(at)
            elif token.kind == "odd":
                self.notes.append(Note(token.text, ODD))
        for kind, factor in (("(", STEP), ("[", 1 / STEP)):
            for one in filter(None, self._stacks[kind]):
                self.spans.append((one.at, len(tokens), factor))
                self.notes.append(Note(kind, OPEN))

    def _open(self, at: int, kind: str) -> None:
        stack, other = self._stacks[kind], self._stacks["[" if kind == "(" else "("]
        if len(stack) < DEPTH:
            stack.append(_Open(at, len(other), []))
        else:
            stack.append(None)
            self.notes.append(Note(kind, DEEP))

    def _close(self, at: int, token: Token) -> None:
        square = token.text == "]"
        stack = self._stacks["[" if square else "("]
        if not stack:
            self.plain.add(at)
            return
        if (one := stack.pop()) is None:
            return
        if square and one.separators and one.other == len(self._stacks["("]) and self._schedule(one, at):
            return
        self.spans.append((one.at, at, 1 / STEP if square else token.weight))
        if not square and token.text == ")" and self._long_number(one, at):
            self.notes.append(Note(self.tokens[at - 1].text.strip()[:20] + "...", ODD))

    def _separate(self, at: int) -> None:
        """A colon or a bar belongs to the innermost square bracket, unless a round one was opened in it."""
        square = self._stacks["["]
        if square and square[-1] is not None and square[-1].other == len(self._stacks["("]):
            square[-1].separators.append(at)

    def _schedule(self, one: _Open, end: int) -> bool:
        """Whether it is "[from:to:when]" or "[one|other]": then all is dropped but the first that has words."""
        bars = [at for at in one.separators if self.tokens[at].text == "|"]
        colons = [at for at in one.separators if self.tokens[at].text == ":"]
        if bars:
            ends = [*bars, end]
        elif len(colons) <= 2 and colons[-1] == end - 2 and NUMBER.fullmatch(self.tokens[end - 1].text):
            ends = colons
        else:
            return False
        begins = [one.at, *ends[:-1]]
        spoken = [i for i, (a, b) in enumerate(zip(begins, ends, strict=True)) if self._text(a + 1, b).strip()]
        kept = spoken[0] if spoken else 0
        self.dropped += [(one.at, begins[kept] + 1), (ends[kept], end + 1)]
        self.notes.append(Note(self._text(one.at, end + 1), SCHEDULE))
        return True

    def _text(self, start: int, stop: int) -> str:
        return "".join(token.text for token in self.tokens[start : min(stop, start + 200)])

    def _long_number(self, one: _Open, at: int) -> bool:
        """Whether what stands before a closing bracket would be a weight, were it not for its many digits."""
        if at - one.at < 3 or self.tokens[at - 2].text != ":":
            return False
        return self.tokens[at - 1].kind == "text" and bool(LONG_NUMBER.fullmatch(self.tokens[at - 1].text))


def _pieces(tokens: list[Token], brackets: _Brackets) -> tuple[list[list[Piece]], list[Note]]:
    """The text with the product of the brackets around it, cut at each BREAK; and whether a weight was held."""
    begins, ends = defaultdict(list), defaultdict(list)
    for number, (start, stop, _) in enumerate(brackets.spans):
        begins[start].append(number)
        ends[stop].append(number)
    hidden = [0] * (len(tokens) + 1)
    for start, stop in brackets.dropped:
        hidden[start] += 1
        hidden[stop] -= 1
    parts: list[list[Piece]] = [[]]
    acting: dict[int, float] = {}
    held: list[Note] = []
    weight, depth = 1.0, 0
    for at, token in enumerate(tokens):
        if at in begins or at in ends:
            for number in ends[at]:
                acting.pop(number)
            acting |= {number: brackets.spans[number][2] for number in begins[at]}
            weight = round(math.prod(acting.values()), 9)  # 1.1 * (1 / 1.1) is 1 in any order
            if abs(weight) > LIMIT:
                weight = math.copysign(LIMIT, weight)
                held = [Note("a weight", HELD)]
        depth += hidden[at]
        if depth or token.kind in ("open", "tag") or (token.kind == "close" and at not in brackets.plain):
            continue
        if token.kind == "new":
            parts.append([])
        else:
            parts[-1].append(Piece(token.text, weight))
    return [_merged(part) for part in parts], held


def _merged(pieces: list[Piece]) -> list[Piece]:
    """Neighbors of one weight as one piece; empty ones left out."""
    texts: list[tuple[list[str], float]] = []
    for text, weight in pieces:
        if not text:
            continue
        if texts and texts[-1][1] == weight:
            texts[-1][0].append(text)
        else:
            texts.append(([text], weight))
    return [Piece("".join(several), weight) for several, weight in texts]


def flattened(parts: list[list[Piece]]) -> list[Piece]:
    """The pieces of all parts in a row, one blank where a BREAK was: for encoders that read no windows."""
    pieces: list[Piece] = []
    for part in filter(None, parts):
        if pieces:
            pieces[-1] = Piece(pieces[-1].text.rstrip(), pieces[-1].weight)
            part = [Piece(" " + part[0].text.lstrip(), part[0].weight), *part[1:]]
        pieces += part
    return pieces
