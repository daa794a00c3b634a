import json

import pytest
from PIL import Image
from support.heatmaps import save_heatmap
from support.shell import run_shell

from t2i_tools.cli import main
from t2i_tools.errors import InputError
from t2i_tools.evaluation.grid import Axis, draw_grid, grid_cells, parse_axis
from t2i_tools.images.metadata import read_settings


@pytest.fixture
def t2i(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_heatmap(tmp_path / "judge.safetensors")

    def run(*arguments):
        return run_shell(capsys, "grid", "--model", str(tiny_folder), "--device", "cpu", *arguments)

    return run


OPTIONS = ("a {colour} cat", "--axis", "size=16x16,24x16", "--axis", "colour=red,blue", "--steps", 1, "--seed", 3)


def test_cells_picture_and_json(t2i, tmp_path):
    code, out, err = t2i(*OPTIONS, "--output", "g", "--label", "cat", "--judge", "judge.safetensors")
    assert (code, out, err) == (0, "g/grid.png\n", "")
    told = json.loads((tmp_path / "g" / "grid.json").read_text())
    assert told["axes"] == {"size": ["16x16", "24x16"], "colour": ["red", "blue"]}
    shown = [(cell["size"], cell["colour"]) for cell in told["cells"]]
    assert shown == [("16x16", "red"), ("24x16", "red"), ("16x16", "blue"), ("24x16", "blue")]
    for cell in told["cells"]:
        settings = read_settings(tmp_path / "g" / cell["file"])
        assert settings["prompt"] == f"a {cell['colour']} cat"
        assert isinstance(cell["cat"], int)
        with Image.open(tmp_path / "g" / cell["file"]) as image:
            assert f"{image.width}x{image.height}" == cell["size"]


def test_what_is_there_is_not_made_again(t2i, tmp_path):
    t2i(*OPTIONS, "--output", "g", "--quiet")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "g" / "cells").iterdir()}
    picture = (tmp_path / "g" / "grid.png").read_bytes()
    next(iter(before)).unlink()
    assert t2i(*OPTIONS, "--output", "g", "--json")[1] == (tmp_path / "g" / "grid.json").read_text()
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "g" / "cells").iterdir()}
    assert after.keys() == before.keys()
    assert sum(after[path] != before[path] for path in before) == 1
    assert (tmp_path / "g" / "grid.png").read_bytes() == picture


@pytest.mark.parametrize("kept", [0, 200, -30])
def test_a_cell_that_is_damaged_is_made_again(t2i, tmp_path, kept):
    t2i(*OPTIONS, "--output", "g", "--quiet")
    path = min((tmp_path / "g" / "cells").iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    assert t2i(*OPTIONS, "--output", "g", "--quiet") == (0, "", "")
    assert path.read_bytes() == whole


def test_a_cell_is_the_image_that_generate_makes(t2i, tiny_folder, tmp_path):
    t2i("a cat", "--axis", "seed=3,4", "--steps", 1, "--size", "16x16", "--output", "g", "--quiet")
    with pytest.raises(SystemExit):
        generate = ("generate", "a cat", "--model", tiny_folder, "--steps", 1, "--size", "16x16", "--seed", 4)
        main([*map(str, generate), "--output", "alone.png", "--quiet"])
    (cell,) = (tmp_path / "g" / "cells").glob("seed-4-*.png")
    with Image.open(cell) as one, Image.open(tmp_path / "alone.png") as other:
        assert one.tobytes() == other.tobytes()


def test_a_plugin_off_and_on(t2i, tiny_folder, tmp_path):
    options = ("--axis", "entropy-scaling=off,on", "--steps", 1, "--size", "32x16", "--seed", 3, "--output", "g")
    assert t2i("a cat", *options, "--axis", "entropy-strength=1,-1")[::2] == (0, "")
    cells = {
        (cell["entropy_scaling"], cell["entropy_strength"]): tmp_path / "g" / cell["file"]
        for cell in json.loads((tmp_path / "g" / "grid.json").read_text())["cells"]
    }
    pixels = {values: Image.open(file).tobytes() for values, file in cells.items()}
    assert pixels["off", "1"] == pixels["off", "-1"]  # what is off has no strength
    assert len(set(pixels.values())) == 3
    assert read_settings(cells["on", "-1"])["entropy_scaling"]["strength"] == -1
    assert "entropy_scaling" not in read_settings(cells["off", "-1"])
    t2i("a cat", "--axis", "seed=3", "--entropy-scaling", *options[2:-1], "fixed")
    (cell,) = (tmp_path / "fixed" / "cells").iterdir()
    assert Image.open(cell).tobytes() == pixels["on", "1"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a cat", "--axis", "entropy-scaling=off,maybe"], "'maybe' is not a valid value: use on or off"),
        (["a cat", "--axis", "deep-shrink=on", "--axis", "deep-shrink-level=one"], "'one' is not a valid value"),
        (["a cat", "--axis", "seed=1", "--entropy-strength", "2"], "goes with --entropy-scaling"),
        (["a cat", "--axis", "entropy-scaling=on", "--axis", "entropy-rule=magic"], "magic"),
        (["a {native} cat", "--axis", "native=8x8"], "cannot name an axis"),
        (["a cat", "--axis", "steps"], "NAME=VALUE"),
        (["a cat", "--axis", "steps=1,,2"], "NAME=VALUE"),
        (["a cat", "--axis", "steps=1,1"], "a value twice"),
        (["a cat", "--axis", "steps=one"], "'one' is not a valid value"),
        (["a cat", "--axis", "steps=0"], "steps 0"),
        (["a cat", "--axis", "size=big"], "WIDTHxHEIGHT"),
        (["a cat", "--axis", "fit=tight"], "crop or snap"),
        (["a cat", "--axis", "colour=red"], "put {colour} into the prompt"),
        (["a {colour} cat", "--axis", "steps=1"], "--axis colour="),
        (["a {size} cat", "--axis", "size=8x8"], "cannot name an axis"),
        (["a {colour cat", "--axis", "colour=red"], "brace"),
        (["a cat", "--axis", "steps=1", "--axis", "steps=2"], "comes twice"),
        (["a cat", "--axis", "seed=" + ",".join(map(str, range(1001)))], "1001 cells"),
        (["a cat", "--axis", "steps=1", "--label", "cat", "--judge", "nonsense"], "nonsense"),
        (["a cat", "--axis", "steps=1", "--label", "spoon", "--judge", "judge.safetensors"], "apple, cat"),
    ],
)
def test_bad_input_is_one_line(t2i, tmp_path, arguments, says):
    code, out, err = t2i(*arguments, "--output", "g")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert not (tmp_path / "g").exists()


def test_values_with_commas():
    assert parse_axis("prompt=a cat, asleep|a dog") == Axis("prompt", ("a cat, asleep", "a dog"))
    cells = grid_cells("any", [parse_axis("prompt=a cat, asleep|a dog")], {"seed": 0})
    assert [cell.request.prompt for cell in cells] == ["a cat, asleep", "a dog"]
    with pytest.raises(InputError, match="needs an axis"):
        grid_cells("any", [], {"seed": 0})


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('word="red, blue",green', ("red, blue", "green")),
        ("word=red, blue|green", ("red, blue", "green")),
        ('word="red, blue" | "green"', ("red, blue", "green")),
        ('word="a|b",c', ("a|b", "c")),
        ('word="say ""cheese""",c', ('say "cheese"', "c")),
        ("word=5'6,7'0", ("5'6", "7'0")),
        ("word=red,  blue ", ("red", "blue")),
    ],
)
def test_quotes_and_bars_around_values(text, values):
    assert parse_axis(text) == Axis("word", values)


@pytest.mark.parametrize("text", ['word="red, blue', "word=", "word=a,,b", "=a", 'word="",a'])
def test_an_axis_that_is_not_clear(text):
    with pytest.raises(InputError, match="axis"):
        parse_axis(text)


def test_three_axes_in_one_picture():
    axes = [Axis("seed", ("1", "2")), Axis("steps", ("5", "6", "7")), Axis("colour", ("red", "blue"))]
    cells = grid_cells("a {colour} cat", axes, {})
    assert [cell.request.seed for cell in cells[:3]] == [1, 2, 1]
    sheet = draw_grid(axes, [Image.new("RGB", (20, 30), "red")] * 12, [""] * 12)
    assert sheet.height >= 6 * 30
    assert sheet.width >= 2 * 20
