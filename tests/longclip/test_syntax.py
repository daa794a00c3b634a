import pytest

from t2i_tools.longclip.syntax import parse_prompt
from t2i_tools.longclip.windows import Token, fill_windows

UP, DOWN = 1.1, 1 / 1.1


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
        ("sad :( cat", [("sad :( cat", 1)]),
        ("glad :) cat", [("glad :) cat", 1)]),
        ("(a] b", [("(a] b", 1)]),
        ("[red:1.3]", [("red:1.3", DOWN)]),
        ("at 10:30 (noon)", [("at 10:30 ", 1), ("noon", UP)]),
        ("(red:1.3.4)", [("red:1.3.4", UP)]),
        ("(red:) cat", [("red:", UP), (" cat", 1)]),
        ("()", []),
        ("(:2)", []),
    ],
)
def test_weights(prompt, pieces):
    (read,) = parse_prompt(prompt)
    assert [text for text, _ in read] == [text for text, _ in pieces]
    assert [weight for _, weight in read] == pytest.approx([weight for _, weight in pieces])


def test_breaks():
    assert parse_prompt("a BREAK b") == [[("a ", 1)], [(" b", 1)]]
    assert parse_prompt("a break BREAKS") == [[("a break BREAKS", 1)]]
    assert parse_prompt("BREAK") == [[], []]
    assert parse_prompt("(a BREAK b)") == [[("(a ", 1)], [(" b)", 1)]]  # no bracket reaches over a BREAK


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
