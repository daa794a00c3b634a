"""Forge, SD.Next, Civitai and stable-diffusion.cpp, which write AUTOMATIC1111's text in their own ways."""

import json
from functools import partial
from typing import Any

from . import case, containers
from .a1111 import LINE, line_case, text_case
from .case import Case, without

FORGE = "lllyasviel/stable-diffusion-webui-forge modules/processing.py create_infotext @dfdcbab685e5"
SDNEXT = "vladmandic/sdnext modules/processing_info.py create_infotext @058a7f0cf326"
SDNEXT_SAVE = "vladmandic/sdnext modules/image/save.py @058a7f0cf326"
CIVITAI = "civitai/civitai src/utils/metadata/automatic.metadata.ts @ebed66163038"
CPP = "leejet/stable-diffusion.cpp examples/common/common.cpp get_image_params @97d2990807fe"

FLUX = (
    "a cat\nSteps: 20, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 7, "
    "Size: 896x1152, Model hash: 01e2d3, Model: flux1-dev, Version: f2.0.1v1.10.1, Module 1: ae"
)
# The distilled scale is the one that Flux is given: diffusers' guidance_scale.
FLUX_TOLD = {
    "prompt": "a cat",
    "seed": 7,
    "steps": 20,
    "guidance": 3.5,
    "width": 896,
    "height": 1152,
    "sampler": case.EULER_TRAILING,
}
FORGES = [
    text_case(
        "forge flux",
        FLUX,
        FLUX_TOLD,
        FORGE,
    ),
    text_case(
        "forge flux with both scales",
        FLUX.replace("CFG scale: 1,", "CFG scale: 2,"),
        FLUX_TOLD,
        FORGE,
        noted=("CFG scale",),
    ),
    line_case(
        "forge list of lora hashes",
        f'{LINE}, Lora hashes: "detail: aa11", Emphasis: No norm, Discard penultimate sigma: True, Version: f2.0.1',
        {},
        FORGE,
    ),
]

NEXT = (
    "Steps: 30, Size: 640x512, Sampler: UniPC, Scheduler: UniPCMultistepScheduler, Seed: 42, CFG scale: 6, "
    "App: SD.Next, Version: 058a7f0, Pipeline: StableDiffusionPipeline, Operations: txt2img, Model: dreamshaper_8"
)
NEXT_TOLD = {"seed": 42, "steps": 30, "guidance": 6.0, "width": 640, "height": 512, "sampler": case.UNIPC}
NEXT_CAT = {"prompt": "a cat", "negative": "dark"} | NEXT_TOLD
NEXTS = [
    text_case("sdnext png", f"a cat\nNegative prompt: dark\n{NEXT}", NEXT_CAT, SDNEXT),
    text_case("sdnext no negative", f"a cat\nNegative prompt: \n{NEXT}", {"prompt": "a cat"} | NEXT_TOLD, SDNEXT),
    text_case("sdnext neither", f"Negative prompt: \n{NEXT}", {"prompt": ""} | NEXT_TOLD, SDNEXT),
    text_case(
        "sdnext templates",
        f"a cat\nNegative prompt: dark\nTemplate: a __pet__\nNegative template: d\n{NEXT}",
        NEXT_CAT,
        SDNEXT,
    ),
    Case(
        "sdnext jpeg",
        ".jpg",
        lambda path: containers.exif_big(path, f"a cat\nNegative prompt: dark\n{NEXT}", "JPEG"),
        NEXT_CAT,
        SDNEXT_SAVE,
    ),
    text_case(
        "sdnext kdpm2",
        f"a cat\nNegative prompt: dark\n{NEXT}".replace("UniPC, Scheduler: UniPCM", "KDPM2 a, Scheduler: KDPM2A"),
        NEXT_CAT | {"sampler": case.KDPM2_A},
        SDNEXT,
    ),
    text_case(
        "sdnext default sampler",
        f"a cat\nNegative prompt: dark\n{NEXT}".replace("Sampler: UniPC, ", ""),
        NEXT_CAT,
        SDNEXT,
        may_lack=("sampler",),
    ),
    text_case(
        "sdnext second pass",
        f"a cat\nNegative prompt: dark\n{NEXT}, Hires size: 1280x1024, Hires steps: 5, Hires sampler: DDIM",
        NEXT_CAT,
        SDNEXT,
        noted=("Hires",),
    ),
]

RESOURCES = json.dumps([{"type": "checkpoint", "modelVersionId": 1, "modelName": "a, b: c", "weight": 1}])
ON_SITE = (
    "a cat\nNegative prompt: dark\nSteps: 25, Sampler: DPM++ 2M Karras, CFG scale: 4, Seed: 9, Size: 832x1216, "
    "Clip skip: 2, Created Date: 2025-01-02T03:04:05.6Z, "
    f"Civitai resources: {RESOURCES}, Civitai metadata: {{}}"
)
ON_SITE_TOLD = {
    "prompt": "a cat",
    "negative": "dark",
    "seed": 9,
    "steps": 25,
    "guidance": 4.0,
    "width": 832,
    "height": 1216,
    "sampler": case.DPM_2M_KARRAS,
}
EXPORTED = (
    "a cat\nNegative prompt: dark\nSteps: 25, width: 832, height: 1216, CFG scale: 4, Sampler: Euler a, Seed: 9, "
    "baseModel: SDXL 1.0, quantity: 4, workflow: txt2img"
)
CIVITAIS = [
    Case(
        "civitai jpeg",
        ".jpg",
        partial(containers.exif_big, text=ON_SITE, kind="JPEG"),
        ON_SITE_TOLD,
        CIVITAI,
        noted=("Clip skip",),
    ),
    text_case("civitai png", ON_SITE, ON_SITE_TOLD, CIVITAI, noted=("Clip skip",)),
    text_case(
        "civitai resources with nested braces",
        ON_SITE.replace("metadata: {}", 'metadata: {"remix": {"seed": 3, "steps": 4}}'),
        ON_SITE_TOLD,
        CIVITAI,
    ),
    text_case(
        "civitai width behind size",
        ON_SITE + ", width: 64, height: 64, prompt: other, negativePrompt: other, seed: 1, steps: 1",
        ON_SITE_TOLD,
        CIVITAI,
    ),
    text_case(
        "civitai copied text",
        EXPORTED,
        ON_SITE_TOLD | {"sampler": case.EULER_A},
        CIVITAI,
        may_lack=("width", "height"),
    ),
    text_case(
        "civitai sampler undefined",
        ON_SITE.replace("DPM++ 2M Karras", "Undefined"),
        ON_SITE_TOLD | {"sampler": None},
        CIVITAI,
        noted=("Undefined",),
    ),
]

CPP_LINE = (
    "Steps: 30, CFG scale: 5.000000, Guidance: 3.500000, Eta: 0.000000, Seed: 197583933, Size: 512x768, "
    "Model: v1-5.safetensors, RNG: cuda, Sampler: {}, Version: stable-diffusion.cpp"
)
CPP_TOLD = {"prompt": "a cat", "negative": "dark", "seed": 197583933, "steps": 30, "guidance": 5.0} | {
    "width": 512,
    "height": 768,
}


def cpp_case(name: str, sampler: str, fields: dict[str, Any], **more: Any) -> Case:
    text = f"a cat\nNegative prompt: dark\n{CPP_LINE.format(sampler)}"
    return text_case(f"sd.cpp {name}", text, CPP_TOLD | fields, CPP, **more)


CPPS = [
    cpp_case("euler a", "euler_a", {"sampler": case.EULER_A}),
    cpp_case("karras", "dpm++2m karras", {"sampler": case.DPM_2M_KARRAS}),
    cpp_case("discrete", "heun discrete", {"sampler": case.HEUN}),
    cpp_case("another version of a sampler", "dpm++2mv2", {"sampler": None}, noted=("dpm++2mv2",)),
    cpp_case("trailing", "ddim_trailing", {"sampler": case.sampler("DDIMScheduler", "trailing")}),
    text_case(
        "sd.cpp skipped layers and sigmas",
        f"a cat\nNegative prompt: dark\n{CPP_LINE.format('euler')}".replace(
            "Guidance:",
            "SLG scale: 2.5, Skip layers: [7, 8, 9, ], Skip layer start: 0.01, Skip layer end: 0.2, Guidance:",
        ).replace("euler,", "euler, Custom Sigmas: [14.6146, 7.0000, 0.0000],"),
        CPP_TOLD | {"sampler": case.EULER},
        CPP,
        noted=("Custom Sigmas", "Skip layers"),
    ),
    text_case(
        "sd.cpp flux",
        f"a cat\n{CPP_LINE.format('euler simple')}".replace("scale: 5.", "scale: 1."),
        without(CPP_TOLD, "negative") | {"guidance": 1.0, "sampler": case.EULER_TRAILING},
        CPP,
        noted=("Guidance",),
    ),
]

CASES = [*FORGES, *NEXTS, *CIVITAIS, *CPPS]
