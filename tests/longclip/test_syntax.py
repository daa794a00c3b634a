import random
import re

import pytest
from support import a1111
from support.growth import assert_linear, cpu_seconds

from t2i_tools.longclip.syntax import LIMIT, Piece, gathered, parse_prompt
from t2i_tools.longclip.windows import Token, fill_windows

UP, DOWN = 1.1, 1 / 1.1


def read(prompt):
    return parse_prompt(prompt).parts


def alike(parts, others):
    return [[text for text, _ in part] for part in parts] == [[text for text, _ in part] for part in others] and [
        weight for part in parts for _, weight in part
    ] == pytest.approx([weight for part in others for _, weight in part])


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("a cat", [("a cat", 1)]),
        ("", []),
        ("a (red:1.3) cat", [("a ", 1), ("red", 1.3), (" cat", 1)]),
        ("(red: .5 )", [("red", 0.5)]),
        ("(red:-1)", [("red", -1)]),
        ("(red)", [("red", UP)]),
        ("((red))", [("red", UP * UP)]),
        ("[red]", [("red", DOWN)]),
        ("(a [b] c:2)", [("a ", 2), ("b", 2 * DOWN), (" c", 2)]),
        ("(a (b:1.5):2)", [("a ", 2), ("b", 3)]),
        (r"a \(red\) cat", [("a (red) cat", 1)]),
        (r"(a \(red:1.2\):1.3)", [("a (red:1.2)", 1.3)]),
        (r"a\b \\ c", [("ab \\ c", 1)]),
        ("sad :( cat", [("sad :", 1), (" cat", UP)]),
        ("glad :) cat", [("glad :) cat", 1)]),
        ("(a] b", [("a] b", UP)]),
        ("(a [b) c]", [("a ", UP), ("b", 1), (" c", DOWN)]),
        ("at 10:30 (noon)", [("at 10:30 ", 1), ("noon", UP)]),
        ("(red:) cat", [("red:", UP), (" cat", 1)]),
        ("()", []),
        ("(:2)", []),
        ("(unbalanced", [("unbalanced", UP)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1),
                ("house", 1.573),
                (" ", UP),
                ("on", 1),
                (" a ", UP),
                ("hill", 0.55),
                (", sun, ", UP),
                ("sky", 1.4641),
                (".", UP),
            ],
        ),
    ],
)
def test_weights(prompt, pieces):
    assert alike(read(prompt), [pieces] if pieces else [[]])
    assert alike(a1111.read_weights(prompt), [pieces] if pieces else [[]])


def test_breaks():
    assert read("a BREAK b") == [[("a ", 1)], [(" b", 1)]]
    assert read("a break BREAKS") == [[("a break BREAKS", 1)]]
    assert read("BREAK") == [[], []]
    assert read("(a cat BREAK a dog:1.3)") == [[("a cat ", 1.3)], [(" a dog", 1.3)]]
    assert read("a (b BREAK c") == [[("a ", 1), ("b ", UP)], [(" c", UP)]]


@pytest.mark.parametrize("make", [a1111.balanced, a1111.one_lost, a1111.loose])
def test_prompts_are_read_as_automatic1111_reads_them(make):
    chance = random.Random(make.__name__)
    prompts = [make(chance) for _ in range(500)]
    others = [prompt for prompt in prompts if not alike(read(prompt), a1111.read_weights(prompt))]
    assert len(set(prompts)) > 300
    assert others == []


@pytest.mark.parametrize(
    ("prompt", "words", "notes"),
    [
        ("a cat <lora:add_detail:0.8>", "a cat ", ["'<lora:add_detail:0.8>': taken out"]),
        ("<lora:[XL]blood:1>a cat", "a cat", ["taken out"]),
        ("<hypernet:x:1> a <style> <lora:y>", " a <style> ", ["'<hypernet:x:1>', '<lora:y>': taken out"]),
        ("a [cat:dog:0.5]", "a cat", ["'[cat:dog:0.5]': changes nothing"]),
        ("a [dog:.5]", "a dog", ["changes nothing"]),
        ("a [dog::3]", "a dog", ["changes nothing"]),
        ("[red|blue|] cat", "red cat", ["changes nothing"]),
        ("a[b:[c:d:2]:1]e", "abe", ["changes nothing"]),
        ("a cat AND a dog", "a cat AND a dog", ["'AND': read as a word"]),
        ("(a:1.2.3)", "a:1.2.3", ["no number"]),
        ("(a:" + "9" * 30 + ")", "a:" + "9" * 30, ["no number"]),
        ("(unbalanced", "unbalanced", ["'(': never closed"]),
        ("[[a]", "a", ["'[': never closed"]),
        ("(" * 4000 + "a" + ")" * 4000, "a", ["deeper than 100", "held within 1000"]),
        ("a (red:1.3) [cat] BREAK", "a red cat ", []),
        ("[a (b:0.5] c", "a (b:0.5] c", None),
    ],
)
def test_what_does_not_act_is_noted(prompt, words, notes):
    parsed = parse_prompt(prompt)
    if notes is None:  # crossing brackets are no schedule
        assert not any("changes nothing" in line for line in gathered(parsed.notes))
        return
    assert "".join(text for part in parsed.parts for text, _ in part) == words
    lines = gathered(parsed.notes)
    assert len(lines) == len(notes)
    for line, note in zip(lines, notes, strict=True):
        assert note in line
        assert len(line) < 300


def test_a_weight_is_held_within_what_half_precision_holds():
    ((piece,),) = read("(((a:900):900):900)")
    assert piece == Piece("a", LIMIT)
    ((piece,),) = read("((a:-900):900)")
    assert piece == Piece("a", -LIMIT)


HOSTILE = {
    "nested": lambda n: "(" * (n // 2) + "a" + ")" * (n // 2),
    "unclosed": lambda n: "(" * n,
    "digits": lambda n: "(a:" + "9" * n,
    "pairs": lambda n: "((a)" * (n // 4),
    "deep pairs": lambda n: ("(" * 100 + "a" + ")" * 100) * (n // 201),
    "bars": lambda n: "[a|" * (n // 3),
    "tags": lambda n: "<a:" * (n // 3),
    "colons": lambda n: ":" * n,
    "blanks": lambda n: ":" + " " * n,
    "breaks": lambda n: "BREAK " * (n // 6),
    "crossed": lambda n: "( [ " * (n // 4) + ")" * (n // 4),
    "schedules": lambda n: "[a:" * (n // 6) + "b:1]" * (n // 6),
}


def read_whole(prompt):
    return gathered(parse_prompt(prompt).notes)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_prompts_take_milliseconds(name):
    prompt = HOSTILE[name](20_000)
    assert cpu_seconds(lambda: read_whole(prompt)) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_the_time_grows_with_the_length_alone(name):
    assert_linear(read_whole, HOSTILE[name])


def tokens(words):
    """One letter a token."""
    return [Token(ord(letter), 1.0, number, letter) for number, word in enumerate(words) for letter in word]


def spelt(windows):
    return ["".join(token.text for token in window) for window in windows]


@pytest.mark.parametrize(
    ("parts", "windows"),
    [
        ([["ab", "c", "d"]], ["abcd"]),
        ([["ab", "cde"]], ["ab", "cde"]),
        ([["ab", "cd", "ef"]], ["abcd", "ef"]),
        ([["a", "bcdefgh", "i"]], ["abcd", "efgh", "i"]),
        ([["ab"], ["c"]], ["ab", "c"]),
        ([["ab"], [], ["c"]], ["ab", "c"]),
        ([[]], [""]),
        ([[], []], [""]),
    ],
)
def test_words_go_whole_into_windows(parts, windows):
    assert spelt(fill_windows([tokens(words) for words in parts], 4)) == windows


@pytest.mark.parametrize(
    ("text", "windows"),
    [
        ("ab. cd. e", ["ab.", " cd. e"]),
        ("a. b. cdefg", ["a. b.", " cdef", "g"]),  # longer than a window: by words
        ("a! b? c", ["a! b?", " c"]),
        ("1.5", ["1.5"]),
        ("abcdef", ["abcd", "ef"]),
    ],
)
def test_sentences_go_whole_into_windows(text, windows):
    """One letter or mark is one token, a blank goes with what follows; four tokens fit."""
    part = [Token(0, 1.0, word, letter) for word, letter in enumerate(re.findall(r" ?\S", text))]
    assert spelt(fill_windows([part], 4, "sentences")) == windows
