import random

import pytest

from t2i_tools.errors import InputError
from t2i_tools.images.wildcards import fill_wildcards, has_wildcards


@pytest.fixture
def lists(tmp_path):
    (tmp_path / "warm").mkdir()
    (tmp_path / "color.txt").write_text("# colors\nred\n\n  blue \n")
    (tmp_path / "warm" / "tone.txt").write_text("dark __color__\n")
    (tmp_path / "round.txt").write_text("a __round__\n")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    return tmp_path


def drawn(text, folder=None, seeds=range(60)):
    return {fill_wildcards(text, random.Random(seed), folder) for seed in seeds}


def test_what_is_drawn(lists):
    assert drawn("a {red|blue} cat") == {"a red cat", "a blue cat"}
    assert drawn("{a|{b|c}}{|!}") == {"a", "b", "c", "a!", "b!", "c!"}
    assert drawn("a __color__ cat", lists) == {"a red cat", "a blue cat"}
    assert drawn("__warm/tone__", lists) == {"dark red", "dark blue"}
    assert drawn("{__color__|green} __color__", lists) == {
        f"{one} {other}" for one in ("red", "blue", "green") for other in ("red", "blue")
    }


def test_a_seed_draws_the_same_each_time(lists):
    text = "{a|b|c} __color__ {d|e|f}"
    assert len(drawn(text, lists, [7] * 20)) == 1
    counts = [fill_wildcards("{a|b}", random.Random(seed)) for seed in range(400)].count("a")
    assert 150 < counts < 250


@pytest.mark.parametrize("text", ["a cat", "{count} cats", "a_b__c", "_____", "{}", "a | b", "(a|b)"])
def test_what_is_no_wildcard_stays(text):
    assert not has_wildcards(text)
    assert fill_wildcards(text, random.Random(0)) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("__color__", "--wildcards FOLDER"),
        ("__none__", "__none__: cannot read .*none.txt: No such file"),
        ("__empty__", "no line to choose"),
        ("__round__", "in a circle"),
        ("{0.5::a|b}", "weights"),
        ("{2$$a|b}", "numbers"),
    ],
)
def test_what_is_refused(lists, text, says):
    with pytest.raises(InputError, match=says):
        fill_wildcards(text, random.Random(0), None if text == "__color__" else lists)


@pytest.mark.parametrize("text", ["{" * 100_000, "{" + "|" * 100_000, "__a/" * 25_000, "_" * 99_999])
def test_hostile_texts_end_soon(text, lists):
    try:
        fill_wildcards(text, random.Random(0), lists)
    except InputError as error:
        assert len(str(error)) < 300
