"""NovelAI, Draw Things, Easy Diffusion, and objects of nobody."""

import json
from functools import partial
from typing import Any
from xml.sax.saxutils import escape

from . import case, containers
from .case import Case, png_case, told

NOVEL = "NovelAI/novelai-image-metadata nai_meta.py, nai_meta_writer.py @3d9c7b7659e3"
DRAW = "drawthingsai/draw-things-community Libraries/LocalImageGenerator/Sources/ImageConverter.swift @bfafc68cf2c1"
EASY = (
    "easydiffusion/easydiffusion ui/easydiffusion/utils/save_utils.py @19c805ee10bf, sdkit file_utils.py @00897d19eba1"
)

NOVEL_COMMENT = {
    "prompt": "a cat",
    "steps": 28,
    "height": 1216,
    "width": 832,
    "scale": 5.0,
    "uncond_scale": 1.0,
    "cfg_rescale": 0.0,
    "seed": 3172958204,
    "n_samples": 1,
    "hide_debug_overlay": False,
    "noise_schedule": "native",
    "sampler": "k_euler_ancestral",
    "uc": "dark",
    "sm": False,
    "request_type": "PromptGenerateRequest",
    "signed_hash": "x",
}
NOVEL_TOLD = told(3172958204, 28, 5.0, 832, 1216, case.EULER_A)


def novel(**changes: Any) -> dict[str, str]:
    texts = {
        "Title": "AI generated image",
        "Description": "a cat",
        "Software": "NovelAI",
        "Source": "NovelAI Diffusion V4",
    }
    return texts | {"Comment": json.dumps(NOVEL_COMMENT | changes)}


CAPTIONS = {"caption": {"base_caption": "a cat", "char_captions": [{"char_caption": "a dog", "centers": []}]}}
NOVELS = [
    png_case("novelai png", novel(), NOVEL_TOLD, NOVEL),
    png_case(
        "novelai karras",
        novel(sampler="k_dpmpp_2m", noise_schedule="karras"),
        NOVEL_TOLD | {"sampler": case.DPM_2M_KARRAS},
        NOVEL,
    ),
    Case(
        "novelai hidden in alpha",
        ".png",
        lambda path: containers.stealth_alpha(path, json.dumps(novel())),
        NOVEL_TOLD,
        NOVEL,
    ),
    png_case("novelai characters", novel(v4_prompt=CAPTIONS), NOVEL_TOLD, NOVEL, noted=("v4_prompt",)),
    png_case("novelai image to image", novel(strength=0.7, noise=0.1), NOVEL_TOLD, NOVEL, noted=("strength",)),
]

DRAW_JSON = {
    "c": "a cat",
    "uc": "dark",
    "steps": 20,
    "sampler": "DPM++ 2M Karras",
    "scale": 7.5,
    "seed": 4068211935,
    "size": "512x768",
    "model": "sd_v1.5_f16.ckpt",
    "strength": 1,
    "seed_mode": "Scale Alike",
    "v2": {"seed": 1, "steps": 2, "width": 3, "height": 4, "guidanceScale": 5, "sampler": 0},
}
DRAW_TOLD = told(4068211935, 20, 7.5, 512, 768, case.DPM_2M_KARRAS)
DRAW_TEXT = (
    "a cat\n-dark\nSteps: 20, Sampler: DPM++ 2M Karras, Guidance Scale: 7.5, Seed: 4068211935, Size: 512x768, "
    "Model: sd_v1.5_f16.ckpt, Strength: 1.0, Seed Mode: Scale Alike"
)


def draw_xmp(**changes: Any) -> str:
    item = '<rdf:Alt><rdf:li xml:lang="x-default">{}</rdf:li></rdf:Alt>'
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 6.0.0">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'xmlns:exif="http://ns.adobe.com/exif/1.0/"><xmp:CreatorTool>Draw Things</xmp:CreatorTool>'
        f"<dc:description>{item.format(escape(DRAW_TEXT))}</dc:description>"
        f"<exif:UserComment>{item.format(escape(json.dumps(DRAW_JSON | changes)))}</exif:UserComment>"
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    )


DRAWS = [
    Case("draw things", ".png", partial(containers.xmp_png, xmp=draw_xmp()), DRAW_TOLD, DRAW),
    Case(
        "draw things trailing",
        ".png",
        partial(containers.xmp_png, xmp=draw_xmp(sampler="DDIM Trailing", c="a cat & <b>")),
        DRAW_TOLD | {"sampler": case.sampler("DDIMScheduler", "trailing"), "prompt": "a cat & <b>"},
        DRAW,
    ),
    Case(
        "draw things image to image",
        ".png",
        partial(containers.xmp_png, xmp=draw_xmp(strength=0.5)),
        DRAW_TOLD,
        DRAW,
        noted=("strength",),
    ),
]

EASY_ENTRY = {
    "prompt": "a cat",
    "negative_prompt": "dark",
    "seed": 818,
    "use_stable_diffusion_model": "sd-v1-4",
    "clip_skip": False,
    "use_vae_model": None,
    "sampler_name": "euler_a",
    "width": 512,
    "height": 768,
    "num_inference_steps": 25,
    "guidance_scale": 7.5,
    "tiling": None,
}
EASY_TOLD = told(818, 25, 7.5, 512, 768, case.EULER_A)
EASIES = [
    png_case("easy diffusion png", {key: str(value) for key, value in EASY_ENTRY.items()}, EASY_TOLD, EASY),
    Case(
        "easy diffusion jpeg",
        ".jpg",
        lambda path: containers.exif_big(path, json.dumps(EASY_ENTRY), "JPEG"),
        EASY_TOLD,
        EASY,
    ),
]

NOBODY = "no tool: json that must not become a prompt"
UNKNOWN = [
    png_case(f"unknown json {number}", {"parameters": text}, {}, NOBODY, noted=("",))
    for number, text in enumerate(('{"foo": "a cat", "seed": 3}', '["a cat", 3]', '{"prompt": {"seed": 5}}', "{"))
]

CASES = [*NOVELS, *DRAWS, *EASIES, *UNKNOWN]
