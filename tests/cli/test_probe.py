import json

import pytest
from PIL import Image

from t2i_tools.cli import main
from t2i_tools.imagefile import read_settings


@pytest.fixture
def t2i(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.jsonl").write_text(
        '{"prompt": "two cats", "label": "cat", "count": 2}\n{"prompt": "a red ball", "label": "ball", "count": 1}\n'
    )

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main(["probe", "--model", str(tiny_folder), "--device", "cpu", "--clip", "bundled", *map(str, arguments)])
        captured = capsys.readouterr()
        return left.value.code, captured.out, captured.err

    return run


def test_a_prompt(t2i, tmp_path):
    code, out, err = t2i("two cats", "--steps", 1, "--seed", 3, "--output", "p", "--conditions", "pads,eos,pads:1/5")
    assert (code, err) == (0, "")
    for text in ("encoder  pads 1 of 5", "verdict: undecided", "not run", "p/probe.png"):
        assert text in out
    told = json.loads((tmp_path / "p" / "probe.json").read_text())
    assert [cell["condition"] for cell in told["cells"]] == ["full", "prompt", "pads", "clean", "eos", "pads 1 of 5"]
    assert told["settings"]["seed"] == 3
    assert read_settings(tmp_path / "p" / "probe.png")["seed"] == 3
    with Image.open(tmp_path / "p" / "probe.png") as image:
        assert image.width > 6 * 64


def test_a_file_with_objects(t2i):
    code, out, err = t2i("p.jsonl", "--steps", 1, "--seed", 3, "--number", 2, "--judge", "bundled", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["prompts"], told["seeds"]) == (["two cats"] * 2 + ["a red ball"] * 2, [3, 4] * 2)
    assert all(len(cell["recall"]) == 4 for cell in told["cells"])
    assert "swapped" in [cell["condition"] for cell in told["cells"]]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("",), "the prompt is empty"),
        (("absent.txt",), "absent.txt"),
        (("a", "--conditions", "words"), "unknown condition 'words'"),
        (("a", "--clean", "none"), "clean is"),
        (("a", "--number", 0), "--number takes 1"),
        (("a", "--length", 9), "takes no max_sequence_length"),
        (("a", "--judge", "bundled"), "label and count"),
        (("a", "--output", "p.jsonl"), "not a folder"),
        (("a", "--steps", 0), "steps 0 is out of range"),
    ],
)
def test_wrong_input(t2i, arguments, says):
    code, out, err = t2i(*arguments, *(() if "--steps" in arguments else ("--steps", 1)))
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
