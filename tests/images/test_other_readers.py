"""What AUTOMATIC1111 and Civitai read in the texts that we write."""

import random

import pytest
from PIL import Image
from support.a1111 import balanced, loose, read_weights
from support.infotext_readers import read_as_a1111, read_as_civitai

from t2i_tools.images.metadata import parameters_text, save_image
from t2i_tools.images.settings import read_file
from t2i_tools.models.samplers import find_sampler, parse_sampler, sampler_name

TRAPS = (
    "Negative prompt: none",
    "(Negative prompt:1.3)",
    "Steps: 20, Sampler: DDIM, CFG scale: 1, Seed: 1, Size: 8x8",
    "Steps: up",
    "Template: {a|b}",
    "Negative Template: x",
    "Parameters: all",
    "Parameters : all",
    "Size: 1x1, Seed: 2, Steps: 3",
    'Hashes: {"model": "x"}',
    '"quoted: text", Seed: 7',
    "\\",
    "",
    "  ",
    "\t",
    "a\r",
    "狐 “fox” 🦊",
    "<lora:detail:0.8>",
)
SAMPLERS = ("Euler a", "Euler", "DPM++ 2M Karras", "DPM++ 2M SDE Exponential", "DDIM", "UniPC", "LMS Karras", "Heun")


def made(chance: random.Random) -> str:
    """Lines of prompts and of what could be taken for something else."""
    kinds = (balanced, loose, lambda chance: chance.choice(TRAPS))
    return "\n".join(chance.choice(kinds)(chance) for _ in range(chance.randint(1, 4)))


def settings(chance: random.Random) -> dict:
    return {
        "prompt": made(chance),
        "negative": made(chance) if chance.random() < 0.7 else "",
        "seed": chance.choice((0, 2**32 - 1, chance.randrange(2**63))),
        "steps": chance.randint(1, 150),
        "guidance": chance.choice((1.0, 7.5, 3, 0.0)),
        "scheduler": str(find_sampler(chance.choice(SAMPLERS))),
        "width": 8 * chance.randint(1, 300),
        "height": 8 * chance.randint(1, 300),
        "model": chance.choice(("model", 'a "b", c: d', "C:\\models\\x.safetensors", "Resources: x")),
    }


def meant(prompt: str) -> list:
    """What a text encoder sees: weights and words, however many blanks are between."""
    parts = read_weights(prompt)
    return [[(words, round(weight, 6)) for text, weight in part if (words := " ".join(text.split()))] for part in parts]


MADE = [settings(random.Random(f"other readers {number}")) for number in range(300)]


@pytest.mark.parametrize("read", [read_as_a1111, read_as_civitai])
def test_another_tool_reads_what_was_set(read):
    wrong = []
    for one in MADE:
        got = read(parameters_text(one))
        numbers = {"Seed": "seed", "Steps": "steps", "CFG scale": "guidance"}
        right = {name: str(one[ours]) for name, ours in numbers.items()} | {"Size": f"{one['width']}x{one['height']}"}
        right["Sampler"] = sampler_name(parse_sampler(one["scheduler"]))[0]
        wrong += [(name, got.get(name), value) for name, value in right.items() if got.get(name) != value]
        for name, ours in {"Prompt": "prompt", "Negative prompt": "negative"}.items():
            if meant(got[name]) != meant(one[ours]):
                wrong.append((name, got[name], one[ours]))
    assert wrong == []


@pytest.mark.parametrize("number", range(6))
def test_a_file_holds_that_text(number, tmp_path):
    """PNG text; UserComment as both read it: UNICODE, then UTF-16, high byte first."""
    one = MADE[number] | {"width": 16, "height": 8}
    image = Image.new("RGB", (16, 8))
    save_image(image, tmp_path / "a.png", one)
    save_image(image, tmp_path / "a.webp", one)
    text = parameters_text(one)
    assert Image.open(tmp_path / "a.png").text["parameters"] == text
    comment = Image.open(tmp_path / "a.webp").getexif().get_ifd(0x8769)[0x9286]
    assert comment == b"UNICODE\0" + text.encode("utf-16-be")
    assert read_file(tmp_path / "a.png").settings == one  # ours holds all, to the letter


@pytest.mark.parametrize("settings", [{"prompt": "a cat"}, {"prompt": "a cat", "seed": 3, "width": 8, "height": 8}])
def test_few_fields_are_no_words_of_the_prompt(settings):
    assert read_as_a1111(parameters_text(settings))["Prompt"] == "a cat"
