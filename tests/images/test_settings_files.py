"""Settings files of other tools: what their writers were given is what must come back, or be noted."""

import json
from dataclasses import replace

import pytest
from support.growth import assert_linear
from support.settings_writers import WRITERS, Made, image, png

from t2i_tools.errors import InputError
from t2i_tools.images.metadata import save_image
from t2i_tools.images.settings import read_file
from t2i_tools.images.settings.a1111 import read_parameters
from t2i_tools.models.samplers import find_sampler

MADE = {
    "plain": Made(),
    "no negative": Made(negative="", seed=0, guidance=1.0),
    "other letters": Made(
        "a “fox” 狐 🦊, (red:1.2) [blue] & <b>", 'ugly\\, "bad"', 2**32 - 1, 1, 30.0, 1024, 1024, "a, b"
    ),
}
SAMPLERS = {
    "dpm2m karras": find_sampler("DPM++ 2M Karras"),
    "dpm2msde karras": find_sampler("DPM++ 2M SDE Karras"),
    "euler a": find_sampler("Euler a"),
    "euler simple": find_sampler("Euler", "Simple"),
    "euler": find_sampler("Euler"),
}
NAMES = ("prompt", "negative", "seed", "steps", "guidance", "width", "height", "model")


def expected(made, lacking):
    """What was typed, without what this tool does not write."""
    settings = {name: getattr(made, name) for name in NAMES if name not in lacking.split()}
    return {name: value for name, value in settings.items() if value != ""}


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("writer", WRITERS)
def test_what_a_tool_wrote_comes_back(writer, made, tmp_path):
    tool, sampler, lacking, write = WRITERS[writer]
    made = MADE[made]
    if writer == "invoke2.png":  # square brackets are its negative prompt, and cannot stand in a prompt
        made = replace(made, prompt=made.prompt.replace("[blue]", "blue"))
    write(made, tmp_path / writer)
    read = read_file(tmp_path / writer)
    assert read.tool == tool
    assert {name: value for name, value in read.settings.items() if name in NAMES} == expected(made, lacking)
    assert read.settings["scheduler"] == str(SAMPLERS[sampler])
    assert not set(read.settings) - {*NAMES, "sampler", "scheduler", "lora"}
    assert all("\n" not in note and len(note) < 300 for note in read.notes)


A_LINE = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768"
TEXTS = {
    "no prompt": (f"Negative prompt: dark\n{A_LINE}", {"prompt": "", "negative": "dark", "seed": 5}),
    "no blank": (f"a cat\nNegative prompt:dark\n{A_LINE}", {"prompt": "a cat", "negative": "dark"}),
    "crlf": (
        f"a cat\r\nin a park\r\nNegative prompt: dark\r\n{A_LINE}",
        {"prompt": "a cat\nin a park", "negative": "dark"},
    ),
    "quoted newline": (
        f'a cat\n{A_LINE}, Wildcard prompt: "one\ntwo", Version: v1.5',
        {"prompt": "a cat", "width": 512},
    ),
    "lines behind": (
        f"a cat\n{A_LINE}\nTemplate: {{a|b}} cat\nNegative Template: dark",
        {"prompt": "a cat", "steps": 20},
    ),
    "not first": (
        "a cat\nSampler: Euler a, Steps: 20, Seed: 5, Size: 64x32",
        {"prompt": "a cat", "height": 32, "seed": 5},
    ),
    "width again": (f"a cat\n{A_LINE}, width: 9, prompt: x", {"prompt": "a cat", "width": 512, "height": 768}),
    "any seed": (f"a cat\n{A_LINE.replace('Seed: 5', 'Seed: -1')}", {"prompt": "a cat", "seed": None}),
    "large seed": (f"a cat\n{A_LINE.replace('Seed: 5', 'Seed: 18446744073709551615')}", {"seed": None, "steps": 20}),
    "large size": (f"a cat\n{A_LINE.replace('512x', '5' * 5000 + 'x')}", {"prompt": "a cat", "width": None, "seed": 5}),
    "words": ("Steps: to heaven", {"prompt": "Steps: to heaven", "steps": None}),
    "tag": (f"a cat <lora:detail:0.8>\n{A_LINE}", {"lora": [{"file": "detail", "scale": 0.8}]}),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_as_people_have_them(name, tmp_path):
    text, right = TEXTS[name]
    png(tmp_path / "a.png", parameters=text)
    read = read_file(tmp_path / "a.png")
    assert {field: read.settings.get(field) for field in right} == right
    if None in right.values():
        assert read.notes


@pytest.mark.parametrize(
    "text",
    ['{"a": 1}', "[1]", "[" * 100_000, '{"a":' * 100_000, '{"sui_image_params": 5}', '{"1": {"class_type": 3}}', ""],
)
def test_json_is_never_a_prompt(text, tmp_path):
    png(tmp_path / "a.png", parameters=text)
    try:
        read = read_file(tmp_path / "a.png")
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert not read.settings.get("prompt")
        assert read.notes


def test_a_node_whose_class_is_no_text_is_none(tmp_path):
    inputs = {"seed": 3, "positive": ["p", 0], "latent_image": ["e", 0]}
    graph = {"s": {"class_type": "KSampler", "inputs": inputs}}
    graph |= {"p": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat"}}}
    graph |= {"e": {"class_type": 1.5, "inputs": {"width": 64, "height": 64}}}
    graph |= {"o": {"class_type": "SaveImage", "inputs": {"images": ["s", 0]}}}
    png(tmp_path / "a.png", prompt=json.dumps(graph))
    read = read_file(tmp_path / "a.png")
    assert read.settings.get("seed") == 3 and "size" not in read.settings
    assert "the size is in no node that is known here" in read.notes


def test_text_behind_the_pixels(tmp_path):
    save_image(image(), tmp_path / "a.png", {"prompt": "a cat", "seed": 3})
    data = (tmp_path / "a.png").read_bytes()
    first, second = data.index(b"tEXt") - 4, data.index(b"IDAT") - 4
    end = data.index(b"IEND") - 4
    (tmp_path / "b.png").write_bytes(data[:first] + data[second:end] + data[first:second] + data[end:])
    assert read_file(tmp_path / "b.png").settings == {"prompt": "a cat", "seed": 3}


GROWING = {
    "blanks": lambda n: "x\nSteps: 1," + " " * n + "a",
    "letters": lambda n: "x\nSteps: 1," + "a" * n,
    "fields": lambda n: "x\n" + "Steps: 1, " * (n // 10),
    "lines": lambda n: "Steps: 1,\n" * (n // 10),
    "quotes": lambda n: "x\nSteps: 1, " + 'aa: "' * (n // 5),
    "brackets": lambda n: "x\nSteps: 1, " + "aa: [" * (n // 5),
}


@pytest.mark.parametrize("name", GROWING)
def test_reading_grows_as_the_text(name):
    assert_linear(read_parameters, GROWING[name])
