"""AUTOMATIC1111: a text whose last line holds the settings."""

from typing import Any

from . import case, containers
from .case import Case

A1111 = "AUTOMATIC1111/stable-diffusion-webui modules/processing.py create_infotext @0027ce1f6e58"
A1111_READER = "AUTOMATIC1111/stable-diffusion-webui modules/infotext_utils.py @036500223de0"
A1111_SAVE = "AUTOMATIC1111/stable-diffusion-webui modules/images.py @00952fb4a8b8"
FORGE_SAMPLERS = "lllyasviel/stable-diffusion-webui-forge modules/sd_samplers_kdiffusion.py @dfdcbab685e5"
FORGE_STEALTH = "lllyasviel/stable-diffusion-webui-forge modules/stealth_infotext.py @dfdcbab685e5"
CIVITAI = "civitai/civitai src/utils/metadata/automatic.metadata.ts @ebed66163038"

LINE = "Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7, Seed: 965400086, Size: 512x768"
REST = "Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, Version: v1.10.1"
TOLD = {"seed": 965400086, "steps": 20, "guidance": 7.0, "width": 512, "height": 768, "sampler": case.EULER_A}
CAT = {"prompt": "a cat", "negative": "dark"} | TOLD
WHOLE = f"a cat\nNegative prompt: dark\n{LINE}, {REST}"


def text_case(name: str, text: str, fields: dict[str, Any], source: str = A1111, **more: Any) -> Case:
    return Case(name, ".png", lambda path: containers.png(path, {"parameters": text}), fields, source, **more)


def line_case(name: str, line: str, fields: dict[str, Any], source: str = A1111, **more: Any) -> Case:
    return text_case(name, f"a cat\nNegative prompt: dark\n{line}", CAT | fields, source, **more)


def put(name: str, suffix: str, write: Any, *args: Any, source: str = A1111_SAVE, text: str = WHOLE) -> Case:
    return Case(name, suffix, lambda path: write(path, text, *args), CAT, source)


def put_texts(name: str, write: Any, source: str = A1111_SAVE) -> Case:
    return Case(name, ".png", lambda path: write(path, {"parameters": WHOLE}), CAT, source)


CONTAINERS = [
    put_texts("a1111 png", containers.png),
    put_texts("a1111 png, text behind the pixels", containers.png_behind),
    put_texts("a1111 png, compressed text", containers.png_zipped),
    put("a1111 jpeg", ".jpg", containers.exif_big, "JPEG"),
    put("a1111 webp", ".webp", containers.exif_big, "WEBP"),
    put("a1111 png with exif", ".png", containers.exif_big, "PNG"),
    put("a1111 jpeg, low byte first", ".jpg", containers.exif_little, "JPEG"),
    put("a1111 jpeg, ascii comment", ".jpg", containers.exif_ascii, "JPEG"),
    put("forge png, hidden in alpha", ".png", containers.stealth_alpha, source=FORGE_STEALTH),
]

PROMPTS = [
    text_case("a1111 no negative", f"a cat\n{LINE}, {REST}", {"prompt": "a cat"} | TOLD),
    text_case("a1111 empty prompt", f"Negative prompt: dark\n{LINE}", {"prompt": "", "negative": "dark"} | TOLD),
    text_case("a1111 nothing but settings", LINE, {"prompt": ""} | TOLD),
    text_case(
        "a1111 lines in both prompts",
        f"a cat,\nin a park\nNegative prompt: dark,\nblurry\n{LINE}",
        {"prompt": "a cat,\nin a park", "negative": "dark,\nblurry"} | TOLD,
    ),
    text_case(
        "a1111 an empty line within",
        f"a cat\n\nin a park\nNegative prompt: dark\n{LINE}",
        {"prompt": "a cat\n\nin a park", "negative": "dark"} | TOLD,
    ),
    text_case(
        "a1111 the negative begins twice",
        f"a cat\nNegative prompt: dark\nNegative prompt: blurry\n{LINE}",
        {"prompt": "a cat", "negative": "dark\nblurry"} | TOLD,
        A1111_READER,
    ),
    text_case(
        "a1111 a prompt of other letters",
        f"狐, “fox” 🦊, Ünïcode\nNegative prompt: тень\n{LINE}",
        {"prompt": "狐, “fox” 🦊, Ünïcode", "negative": "тень"} | TOLD,
    ),
    text_case(
        "a1111 a prompt that looks like settings",
        f"Steps: up, Seed: none, Size: big\nNegative prompt: dark\n{LINE}",
        {"prompt": "Steps: up, Seed: none, Size: big", "negative": "dark"} | TOLD,
    ),
    text_case(
        "a1111 an older settings line in the prompt",
        f"a cat\nSteps: 5, Sampler: DDIM, CFG scale: 1, Seed: 1, Size: 8x8\nNegative prompt: dark\n{LINE}",
        {"prompt": "a cat\nSteps: 5, Sampler: DDIM, CFG scale: 1, Seed: 1, Size: 8x8", "negative": "dark"} | TOLD,
        A1111_READER,
    ),
    text_case("a1111 a prompt alone", "a cat, red", {"prompt": "a cat, red"}, A1111_READER),
    text_case("a1111 a prompt alone with colons", "Steps: to heaven", {"prompt": "Steps: to heaven"}, A1111_READER),
    text_case("a1111 a prompt alone in quotes", '"a cat"', {"prompt": '"a cat"'}, A1111_READER),
    text_case("a1111 json as prompt", f'{{"scene": "cat"}}\n{LINE}', {"prompt": '{"scene": "cat"}'} | TOLD),
    text_case("a1111 weights", f"a (red:1.3) [cat] \\(1\\)\n{LINE}", {"prompt": "a (red:1.3) [cat] \\(1\\)"} | TOLD),
    text_case("a1111 carriage returns", WHOLE.replace("\n", "\r\n"), CAT, A1111_READER),
    text_case("a1111 no blank behind negative", WHOLE.replace("prompt: dark", "prompt:dark"), CAT, A1111_READER),
    text_case("a1111 blanks around", f"\n  a cat  \nNegative prompt:   dark \n{LINE}  \n", CAT, A1111_READER),
    text_case(
        "a1111 lines behind the settings", f"{WHOLE}\nTemplate: {{a|b}} cat\nNegative Template: no", CAT, CIVITAI
    ),
]

LINES = [
    line_case(
        "a1111 settings in another order",
        "Sampler: Euler a, Seed: 965400086, Size: 512x768, CFG scale: 7, Steps: 20",
        {},
        A1111_READER,
    ),
    line_case("a1111 a comma at the end", f"{LINE},", {}, A1111_READER),
    line_case("a1111 half a scale", LINE.replace("scale: 7,", "scale: 7.5,"), {"guidance": 7.5}),
    line_case("a1111 seed 0", LINE.replace("965400086", "0"), {"seed": 0}),
    line_case("a1111 largest seed", LINE.replace("965400086", "4294967295"), {"seed": 4294967295}),
    line_case(
        "a1111 quoted fields",
        f'{LINE}, Lora hashes: "one: 0f1, two: 9a2", TI hashes: "bad: 7b0", Model: "a, b: c"',
        {},
    ),
    line_case(
        "a1111 escaped newline in a field", f'{LINE}, Wildcard prompt: "one\\nSteps: 3, Seed: 4", Version: v1', {}
    ),
    line_case("a1111 newline in a field", f'{LINE}, Wildcard prompt: "one\ntwo", Version: v1.5', {}, CIVITAI),
    line_case(
        "a1111 unknown fields named like ours",
        f"{LINE}, prompt: x, negative: y, seed: 1, steps: 2, guidance: 3, width: 4, height: 5, scheduler: DDIM",
        {},
        A1111_READER,
    ),
    line_case(
        "a1111 other steps and samplers for a second pass",
        f"{LINE}, Denoising strength: 0.4, Hires upscale: 2, Hires steps: 9, Hires sampler: DDIM",
        {},
        noted=("Hires", "Denoising"),
    ),
    line_case("a1111 clip skip", f"{LINE}, Clip skip: 2", {}, noted=("Clip skip",)),
    line_case(
        "a1111 any seed",
        LINE.replace("965400086", "-1"),
        {"seed": None},
        A1111_READER,
        noted=("seed",),
    ),
    line_case(
        "a1111 seed of 64 bits", LINE.replace("965400086", "18446744073709551615"), {"seed": None}, noted=("seed",)
    ),
    line_case("a1111 size of words", LINE.replace("512x768", "wide"), {"width": None, "height": None}, noted=("size",)),
    line_case("a1111 steps of words", LINE.replace("Steps: 20", "Steps: many"), {"steps": None}, noted=("steps",)),
    line_case(
        "a1111 scale that is none", LINE.replace("scale: 7", "scale: nan"), {"guidance": None}, noted=("guidance",)
    ),
]


def schedule(sampler: str, kind: str | None) -> str:
    return LINE.replace("Euler a, Schedule type: Automatic", sampler + (f", Schedule type: {kind}" if kind else ""))


SAMPLERS = [
    line_case("a1111 schedule apart", schedule("DPM++ 2M", "Karras"), {"sampler": case.DPM_2M_KARRAS}),
    line_case("a1111 schedule in the name", schedule("DPM++ 2M Karras", None), {"sampler": case.DPM_2M_KARRAS}),
    line_case(
        "a1111 automatic schedule of dpm++ 2m",
        schedule("DPM++ 2M", "Automatic"),
        {"sampler": case.DPM_2M_KARRAS},
        FORGE_SAMPLERS,
    ),
    line_case(
        "a1111 automatic schedule of dpm++ 2m sde",
        schedule("DPM++ 2M SDE", "Automatic"),
        {"sampler": case.DPM_2M_SDE_EXPONENTIAL},
        FORGE_SAMPLERS,
    ),
    line_case("a1111 dpm++ sde", schedule("DPM++ SDE Karras", None), {"sampler": case.DPM_SDE_KARRAS}),
    line_case("a1111 dpm2 a", schedule("DPM2 a Karras", None), {"sampler": case.DPM_2A_KARRAS}),
    line_case("a1111 ddim", schedule("DDIM", None), {"sampler": case.DDIM}),
    line_case("a1111 a sampler nobody has", schedule("Foo 3M", None), {"sampler": None}, noted=("Foo 3M",)),
]


CASES = [*CONTAINERS, *PROMPTS, *LINES, *SAMPLERS]
