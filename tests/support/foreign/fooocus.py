"""Fooocus in both of its schemes, and RuinedFooocus."""

import json
from functools import partial

from . import case, containers
from .case import Case, png_case, told

FOOOCUS = "lllyasviel/Fooocus modules/meta_parser.py, modules/async_worker.py, modules/private_logger.py @59f183ab9b8e"
RUINED = "runew0lf/RuinedFooocus modules/async_worker.py @cc3b738182eb"

FOOOCUS_JSON = {
    "adm_guidance": "(1.5, 0.8, 0.3)",
    "base_model": "juggernautXL_v8Rundiffusion",
    "base_model_hash": "aeb7e9e689",
    "full_negative_prompt": ["dark", "(worst quality:1.5)"],
    "full_prompt": ["cinematic still a cat . emotional", "a cat, intricate"],
    "guidance_scale": 4.0,
    "lora_combined_1": "sd_xl_offset_example-lora_1.0 : 0.1",
    "loras": [["sd_xl_offset_example-lora_1.0", 0.1, "4852686128"]],
    "metadata_scheme": "fooocus",
    "negative_prompt": "dark",
    "performance": "Speed",
    "prompt": "a cat",
    "refiner_model": "None",
    "refiner_switch": 0.5,
    "resolution": "(1152, 896)",
    "sampler": "dpmpp_2m_sde_gpu",
    "scheduler": "karras",
    "seed": "2438275932385113210",
    "sharpness": 2.0,
    "steps": 30,
    "styles": "['Fooocus V2', 'Fooocus Sharp']",
    "vae": "Default (model)",
    "version": "Fooocus v2.5.5",
}
# What Fooocus calls the resolved prompts is what it draws; `prompt` is what was typed, before its styles.
RESOLVED = {"prompt": "cinematic still a cat . emotional, a cat, intricate", "negative": "dark, (worst quality:1.5)"}
FOOOCUS_TOLD = told(2438275932385113210, 30, 4.0, 1152, 896, case.DPM_2M_SDE_KARRAS) | RESOLVED
FOOOCUS_TEXT = (
    "cinematic still a cat . emotional, a cat, intricate\nNegative prompt: dark, (worst quality:1.5)\n"
    "Steps: 30, Sampler: DPM++ 2M SDE Karras, Seed: 77, Size: 1152x896, CFG scale: 4.0, Sharpness: 2.0, "
    'ADM Guidance: "(1.5, 0.8, 0.3)", Model: juggernautXL_v8Rundiffusion, Model hash: aeb7e9e689, Performance: Speed, '
    'Scheduler: karras, VAE: Default (model), Raw prompt: "a cat, red", Raw negative prompt: dark, '
    'Lora hashes: "one: 4852, two: 99", Lora weights: "one: 0.1, two: 1.0", Version: Fooocus v2.5.5'
)
FOOOCUS_TEXT_TOLD = FOOOCUS_TOLD | {"seed": 77}
FOOOCUS_TAGS = {
    containers.USER_COMMENT: json.dumps(FOOOCUS_JSON),
    containers.SOFTWARE: "Fooocus v2.5.5",
    0x927C: "fooocus",
}
FOOOCUSES = [
    png_case(
        "fooocus png",
        {"parameters": FOOOCUS_JSON, "fooocus_scheme": "fooocus"},
        FOOOCUS_TOLD,
        FOOOCUS,
        noted=("expanded",),
    ),
    Case("fooocus jpeg", ".jpg", partial(containers.exif_first, tags=FOOOCUS_TAGS, kind="JPEG"), FOOOCUS_TOLD, FOOOCUS),
    Case(
        "fooocus webp", ".webp", partial(containers.exif_first, tags=FOOOCUS_TAGS, kind="WEBP"), FOOOCUS_TOLD, FOOOCUS
    ),
    png_case("fooocus as a1111", {"parameters": FOOOCUS_TEXT, "fooocus_scheme": "a1111"}, FOOOCUS_TEXT_TOLD, FOOOCUS),
    png_case(
        "fooocus few steps",
        {
            "parameters": FOOOCUS_JSON
            | {"sampler": "euler", "scheduler": "sgm_uniform", "steps": 4, "guidance_scale": 1.0}
        },
        FOOOCUS_TOLD | {"sampler": case.EULER_TRAILING, "steps": 4, "guidance": 1.0},
        FOOOCUS,
    ),
    png_case(
        "fooocus upscaled",
        {"parameters": FOOOCUS_JSON | {"prompt": "", "negative_prompt": ""}},
        FOOOCUS_TOLD,
        FOOOCUS,
        noted=("expanded",),
    ),
    png_case(
        "ruined fooocus",
        {
            "parameters": {
                "Prompt": "a cat",
                "Negative": "dark",
                "steps": 30,
                "cfg": 8.0,
                "width": 1152,
                "height": 896,
                "seed": 5,
                "sampler_name": "dpmpp_2m_sde_gpu",
                "scheduler": "karras",
                "base_model_name": "sd_xl_base_1.0_0.9vae.safetensors",
                "base_model_hash": "e6bb9ea85b",
                "loras": [["aa11", "0.5 - detail.safetensors"]],
                "start_step": 0,
                "denoise": None,
                "clip_skip": 1,
                "software": "RuinedFooocus",
            }
        },
        told(5, 30, 8.0, 1152, 896, case.DPM_2M_SDE_KARRAS),
        RUINED,
    ),
]

CASES = [*FOOOCUSES]
