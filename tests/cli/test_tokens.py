import json

import pytest
from support.shell import run_shell

from t2i_tools.cli.tokens import drawn
from t2i_tools.longclip import Ruler, RulerWord


@pytest.fixture
def t2i(tiny_folder, capsys):
    """Run `t2i VERB PROMPT` on the tiny model; returns (exit code, stdout, stderr)."""

    def run(verb, prompt, *arguments):
        return run_shell(capsys, verb, prompt, "--model", str(tiny_folder), *arguments)

    return run


def test_windows_weights_and_cuts(t2i):
    code, out, err = t2i("tokens", "two (red:1.3) cats BREAK [a] dog", "--long-prompts", "chunk")
    assert (code, err) == (0, "")
    assert out == "text_encoder: 5 tokens, 2 windows of 77\ntwo red:1.3 cats | a:0.909 dog \n"
    code, out, err = t2i("tokens", "red " * 80 + "the end")
    assert (code, err) == (0, "")
    assert out.startswith("text_encoder: 75 tokens, 1 window of 77\nred red ")
    assert out.endswith("\ncut: red red red red red the end\n")
    assert "1 window of 248" in t2i("tokens", "red " * 80, "--long-prompts", "stretch")[1]


def test_what_the_bundled_model_was_not_trained_on(capsys):
    code, out, err = run_shell(capsys, "tokens", "two giraffes")
    assert code == 0 and out.startswith("text_encoder: ")
    assert err.startswith("t2i: the bundled model was not trained on 'giraffes'") and err.count("\n") == 1


def test_json(t2i):
    code, out, err = t2i("tokens", "two (red:1.3)", "--long-prompts", "truncate", "--json")
    assert (code, err) == (0, "")
    (told,) = json.loads(out)
    assert told == {
        "encoder": "text_encoder",
        "window": 77,
        "windows": 1,
        "tokens": 2,
        "cut": "",
        "notes": [],
        "words": [
            {"text": "two", "tokens": [1, 2], "window": 0, "weight": 1.0, "read": True},
            {"text": "red", "tokens": [2, 3], "window": 0, "weight": 1.3, "read": True},
        ],
    }


def test_an_unknown_method(t2i):
    code, out, err = t2i("tokens", "cat", "--long-prompts", "long")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "stretch, chunk, truncate" in err


def test_colours():
    words = [("a", 0, 1.0, True), ("b", 0, 1.3, True), ("c", 1, 1.0, True), ("d", 2, 1.0, False)]
    ruler = Ruler("te", 77, 2, tuple(RulerWord(t, range(1), window, w, read) for t, window, w, read in words))
    text = drawn(ruler)
    styles = {text.plain[span.start : span.end]: span.style for span in text.spans}
    assert (styles["a"], styles["b"], styles["c"], styles["d"]) == ("cyan", "bold cyan", "green", "strike red")


def test_generate_says_what_it_will_not_read(t2i, tmp_path):
    output = str(tmp_path / "x.png")
    run = ("--steps", "1", "--seed", "1", "--output", output)
    code, _, err = t2i("generate", "red " * 75 + "cats on a mat", *run)
    assert (code, err) == (
        0,
        "t2i: text_encoder reads 75 tokens of this prompt and nothing from 'cats on a mat' on: "
        "--long-prompts chunk reads it all\n",
    )
    assert t2i("generate", "red " * 75, *run)[2] == ""
    assert t2i("generate", "red " * 99, *run, "--quiet")[2] == ""
    assert t2i("generate", "red " * 99, *run, "--long-prompts", "chunk")[2] == ""
