import json

import pytest
from PIL import Image

from t2i_tools.cli import main
from t2i_tools.imagefile import read_settings


@pytest.fixture
def t2i(tiny_folder, tmp_path, monkeypatch, capsys):
    """Run `t2i generate` on the tiny model of 64x64 in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        options = ["--model", str(tiny_folder), "--steps", "2", "--seed", "3", *arguments]
        with pytest.raises(SystemExit) as left:
            main(["generate", "cat", *options])
        captured = capsys.readouterr()
        return left.value.code, captured.out, captured.err

    return run


def pixels(path):
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def test_entropy_scaling_and_comparison(t2i):
    size = ("--size", "96x64")
    assert t2i(*size, "--output", "off.png")[0] == 0
    assert t2i(*size, "--output", "on.png", "--entropy-scaling")[0] == 0
    code, out, err = t2i(*size, "--output", "both.png", "--entropy-scaling", "--compare", "--json")
    assert (code, err) == (0, "")
    assert pixels("off.png") != pixels("on.png")
    with Image.open("both.png") as both:
        assert both.size == (192, 64)
        assert both.crop((0, 0, 96, 64)).tobytes() == pixels("off.png")
        assert both.crop((96, 0, 192, 64)).tobytes() == pixels("on.png")
    (told,) = json.loads(out)
    assert told["entropy_scaling"] == {"rule": "sqrt-log", "strength": 1.0, "native": "64x64"}
    assert told["compare"] == "off | on"
    assert (told["width"], told["height"]) == (192, 64)
    assert {"file": "both.png", **read_settings("both.png")} == told
    assert "entropy_scaling" not in read_settings("off.png")


def test_at_the_native_size_nothing_changes(t2i):
    t2i("--output", "off.png")
    t2i("--output", "on.png", "--entropy-scaling")
    assert pixels("off.png") == pixels("on.png")


def test_another_native_size(t2i):
    t2i("--output", "off.png")
    t2i("--output", "on.png", "--entropy-scaling", "--native", "128x64")
    assert pixels("off.png") != pixels("on.png")
    assert read_settings("on.png")["entropy_scaling"]["native"] == "128x64"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--compare"], "--entropy-scaling"),
        (["--native", "64x64"], "--entropy-scaling"),
        (["--entropy-scaling", "--native", "big"], "WIDTHxHEIGHT"),
    ],
)
def test_options_that_do_not_go_together(t2i, arguments, says):
    code, out, err = t2i(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
