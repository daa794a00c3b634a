import json

import pytest
from PIL import Image
from support.shell import run_shell

from t2i_tools.cli.sizes import usual_sizes
from t2i_tools.images.metadata import read_settings


@pytest.fixture
def run(tiny_folder, tmp_path, monkeypatch, capsys):
    """Run `t2i` on the tiny model of 64x64 in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(verb, *arguments):
        return run_shell(
            capsys, verb, *arguments, "--model", str(tiny_folder), "--steps", "2", "--seed", "3", "--device", "cpu"
        )

    return run


def pixels(path):
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def test_a_sheet(run):
    arguments = ("a {cat}", "--sizes", "64x64,96x64,41x30", "--output", "s", "--two-pass")
    assert run("sizes", *arguments) == (0, "s/sizes.png\n", "")
    with open("s/sizes.json") as file:
        images = json.load(file)["images"]
    assert [(one["width"], one["height"], one["method"]) for one in images] == [
        (*size, method) for size in ((64, 64), (96, 64), (41, 30)) for method in ("off", "entropy scaling", "two-pass")
    ]
    off, on, twice = ([f"s/{one['file']}" for one in images[column::3]] for column in range(3))
    assert [pixels(a) == pixels(b) for a, b in zip(off, on, strict=True)] == [True, False, False]
    assert [pixels(a) == pixels(b) for a, b in zip(off, twice, strict=True)] == [True, False, False]
    gains = [read_settings(file)["entropy_scaling"]["gain"] for file in on]
    assert gains[0] == [1.0, 1.0] and gains[1][0] > 1 > gains[2][0]
    run("generate", "a {cat}", "--size", "96x64", "--output", "one.png", "--entropy-scaling")
    assert pixels("one.png") == pixels(on[1])
    before = [pixels("s/sizes.png"), *map(pixels, off)]
    code, out, err = run("sizes", *arguments, "--json")
    assert (code, json.loads(out)["images"], err) == (0, images, "")
    assert [pixels("s/sizes.png"), *map(pixels, off)] == before


def test_a_column_of_deep_shrink(run):
    options = ("--deep-shrink", "--deep-shrink-share", "1")
    assert run("sizes", "a cat", "--sizes", "64x64,96x64", "--output", "s", *options) == (0, "s/sizes.png\n", "")
    with open("s/sizes.json") as file:
        images = json.load(file)["images"]
    assert [one["method"] for one in images[:3]] == ["off", "entropy scaling", "deep shrink"]
    assert [one["deep_shrink"]["steps"] for one in images[2::3]] == [0, 2]
    off, on = ([pixels(f"s/{one['file']}") for one in images[column::3]] for column in (0, 2))
    assert [a == b for a, b in zip(off, on, strict=True)] == [True, False]


def test_sizes_by_default():
    """The native one is among them, and each can be made."""
    found = usual_sizes((1024, 768), 16)
    assert (1024, 768) in found
    assert all(side % 16 == 0 for size in found for side in size)
    assert len(set(found)) == len(found) == 6
    assert usual_sizes((1024, 1024), 16, longest=1536) == [(512, 512), (1024, 1024), (1536, 1536)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--sizes", "64x64,big"), "WIDTHxHEIGHT"),
        (("--sizes", ""), "WIDTHxHEIGHT"),
        (("--judge", "bundled-judge"), "add --label CLASS"),
        (("--fit", "snap"), "does nothing without a size"),
        (("--fit", "stretch"), "crop, snap"),
        (("--entropy-rule", "sqrt"), "sqrt_log"),
        (("--two-pass-strength", "0.3"), "goes with --two-pass"),
        (("--native", "big"), "WIDTHxHEIGHT"),
        (("--label", "unicorn"), "unicorn"),
    ],
)
def test_what_cannot_be_shown(run, arguments, says):
    code, out, err = run("sizes", "cat", "--output", "s", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
