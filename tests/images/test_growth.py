"""Every reader of texts that others write takes a time that grows with the length alone, up to 1 MB."""

import json
import random

import pytest
from PIL import Image, PngImagePlugin
from support.growth import assert_linear

from t2i_tools.errors import InputError
from t2i_tools.evaluation.image_folders import read_images
from t2i_tools.images.metadata import parameters_text
from t2i_tools.images.settings import read_file
from t2i_tools.images.wildcards import fill_wildcards, has_wildcards


def nodes(count, text=""):
    """A graph of ComfyUI with so many nodes on the way to its image, each linked to the one before."""
    graph = {"s": {"class_type": "KSampler", "inputs": {"latent_image": ["0", 0], "positive": ["0", 0], "seed": 1}}}
    graph["e"] = {"class_type": "SaveImage", "inputs": {"images": ["s", 0]}}
    for number in range(count):
        inputs = {"conditioning": [str(number + 1), 0], "samples": [str(number + 1), 0], "note": text}
        graph[str(number)] = {"class_type": "X", "inputs": inputs}
    return graph


def wide(count):
    """A graph with so many samplers, each on its own."""
    sampler = {"latent_image": ["x", 0], "positive": ["x", 0]}
    return {str(number): {"class_type": "KSampler", "inputs": sampler} for number in range(count)}


XMP = "<x Draw Things><exif:UserComment>{}</exif:UserComment></x>"
TEXTS = {  # keyword of the PNG text, and a text of about so many letters
    "json of one key": ("parameters", lambda n: json.dumps({"full_prompt": "a" * n})),
    "json of many keys": (
        "parameters",
        lambda n: json.dumps({"full_prompt": "a"} | {f"k{i:06}": i for i in range(n // 18)}),
    ),
    "json of lists": ("parameters", lambda n: '{"full_prompt": ' + "[1]," * (n // 4)),
    "nested json": ("parameters", lambda n: '{"a":' * (n // 5)),
    "swarm loras": (
        "parameters",
        lambda n: json.dumps({"sui_image_params": {"loras": [f"{i:05}" for i in range(n // 9)]}}),
    ),
    "lora tags": (
        "parameters",
        lambda n: "".join(f"<lora:{i:06}:1>" for i in range(n // 15)) + "\nSteps: 1, Seed: 1, Size: 8x8",
    ),
    "a chain of nodes": ("prompt", lambda n: json.dumps(nodes(n // 110))),
    "many samplers": ("prompt", lambda n: json.dumps(wide(n // 100))),
    "texts of nodes": ("prompt", lambda n: json.dumps(nodes(5, "a" * (n // 5)))),
    "xmp": ("XML:com.adobe.xmp", lambda n: XMP.format("{&quot;c&quot;: &quot;" + "a" * n + "&quot;}")),
    "xmp of entities": ("XML:com.adobe.xmp", lambda n: XMP.format("&amp;" * (n // 5))),
    "xmp of names": ("XML:com.adobe.xmp", lambda n: "Draw Things" + "exif:UserComment" * (n // 16)),
    "dream": ("Dream", lambda n: '"' + "a" * n + '" -s50'),
    "dream of quotes": ("Dream", lambda n: '" ' * (n // 2)),
    "dream of switches": ("Dream", lambda n: "a" + " -s50" * (n // 5)),
    "dream of brackets": ("Dream", lambda n: "[" * (n // 2) + "]" * (n // 2)),
    "dream of blanks": ("Dream", lambda n: "a" + " " * n + "[b]"),
    "novelai": ("Comment", lambda n: json.dumps({"prompt": "a" * n, "v4_prompt": "b"})),
    "invokeai": (
        "invokeai_metadata",
        lambda n: json.dumps({"positive_prompt": "a", "loras": [{"weight": 1}] * (n // 15)}),
    ),
    "templates": (
        "parameters",
        lambda n: "a\nNegative prompt: b\n" + "Template: x\n" * (n // 12) + "Steps: 1, Seed: 2, App: SD.Next",
    ),
    "lines behind": ("parameters", lambda n: "a\nSteps: 1, Seed: 2, Size: 8x8\n" + "Name: x\nmore\n" * (n // 13)),
    "negative prompts": ("parameters", lambda n: "Negative prompt:\n" * (n // 17) + "Steps: 1, Seed: 2, Size: 8x8"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_in_an_image(name, tmp_path):
    keyword, make = TEXTS[name]

    def written(length):
        info = PngImagePlugin.PngInfo()
        info.add_text(keyword, make(length))
        if keyword == "Comment":
            info.add_text("Software", "NovelAI")
        path = tmp_path / f"{length}.png"
        Image.new("RGB", (8, 8)).save(path, pnginfo=info)
        return path

    def read(path):
        try:
            file = read_file(path)
        except InputError as error:
            assert len(str(error)) < 2000
        else:
            assert sum(map(len, file.notes)) < 20_000

    assert_linear(read, written)


WILDCARDS = {
    "braces": lambda n: "{a|b}" * (n // 5),
    "open braces": lambda n: "{a|" * (n // 3),
    "nested braces": lambda n: "{a|" * (n // 4) + "}" * (n // 4),
    "bars": lambda n: "{" + "|" * n + "}",
    "names": lambda n: "__color__ " * (n // 10),
    "underscores": lambda n: "_" * n,
    "letters": lambda n: "__" + "a" * n,
}


@pytest.mark.parametrize("name", WILDCARDS)
def test_wildcards(name, tmp_path):
    (tmp_path / "color.txt").write_text("red\nblue\n" * 1000)

    def fill(text):
        has_wildcards(text)
        try:
            fill_wildcards(text, random.Random(0), tmp_path)
        except InputError as error:
            assert len(str(error)) < 2000

    assert_linear(fill, WILDCARDS[name])


@pytest.mark.parametrize(
    "fill", ["a", "\n", "Steps: 1\n", "Negative prompt:", "Parameters", " ", "\t\n", "Template: \n"]
)
def test_writing(fill):
    assert_linear(
        lambda prompt: parameters_text({"prompt": prompt, "seed": 1}), lambda length: fill * (length // len(fill))
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda n: json.dumps({"prompt": "a" * n, "include": [{"class": "cat", "count": 1}]}),
        lambda n: json.dumps({"prompt": "a", "include": [{"class": "cat", "count": 1}] * (n // 30)}),
        lambda n: '{"prompt": ' + "[" * n,
    ],
    ids=["a prompt", "clauses", "brackets"],
)
def test_geneval(make, tmp_path):
    def written(length):
        place = tmp_path / str(length) / "00000"
        (place / "samples").mkdir(parents=True)
        (place / "metadata.jsonl").write_text(make(length))
        return place.parent

    def read(folder):
        with pytest.raises(InputError) as raised:  # of no image
            read_images(folder)
        assert len(str(raised.value)) < 2000

    assert_linear(read, written)
