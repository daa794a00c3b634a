"""InvokeAI: a text of its own name, before version 3 of two others."""

from typing import Any

from . import case
from .case import png_case, told, without

INVOKE = (
    "invoke-ai/InvokeAI invokeai/app/invocations/metadata.py, services/image_files/image_files_disk.py @8e71a8a51939"
)
INVOKE_SAMPLERS = "invoke-ai/InvokeAI invokeai/backend/stable_diffusion/schedulers/schedulers.py @8e71a8a51939"
INVOKE_2 = "invoke-ai/InvokeAI ldm/invoke/args.py @d9fa50541290, ldm/invoke/pngwriter.py @117f70e1ece1"

INVOKE_META = {
    "generation_mode": "txt2img",
    "positive_prompt": "a cat",
    "negative_prompt": "dark",
    "width": 512,
    "height": 768,
    "seed": 3471,
    "rand_device": "cpu",
    "cfg_scale": 7.5,
    "cfg_rescale_multiplier": 0,
    "steps": 30,
    "scheduler": "euler_a",
    "clip_skip": 0,
    "model": {"key": "c1", "hash": "blake3:11", "name": "Dreamshaper 8", "base": "sd-1", "type": "main"},
    "loras": [{"model": {"name": "detail", "key": "l"}, "weight": 0.75}],
    "app_version": "6.1.0",
}
INVOKE_TOLD = told(3471, 30, 7.5, 512, 768, case.EULER_A)
DREAM = "a cat, red [dark] -s 50 -S 42 -W 512 -H 640 -C 7.5 -A k_lms"
DREAM_TOLD = told(42, 50, 7.5, 512, 640, case.LMS) | {"prompt": "a cat, red"}


def sd_metadata(prompts: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    image = {"prompt": prompts, "steps": 50, "cfg_scale": 7.5, "threshold": 0, "perlin": 0, "height": 640, "width": 512}
    image |= {
        "seed": 42,
        "seamless": False,
        "type": "txt2img",
        "postprocessing": None,
        "sampler": "k_lms",
        "variations": [],
    }
    return {"model": "stable diffusion", "model_id": "sd-1.5", "model_hash": "cc6", "app_id": "invoke-ai/InvokeAI"} | {
        "app_version": "2.3.0",
        "image": image | changes,
    }


INVOKES = [
    png_case("invokeai png", {"invokeai_metadata": INVOKE_META}, INVOKE_TOLD, INVOKE),
    png_case(
        "invokeai karras",
        {"invokeai_metadata": INVOKE_META | {"scheduler": "dpmpp_2m_k"}},
        INVOKE_TOLD | {"sampler": case.DPM_2M_KARRAS},
        INVOKE_SAMPLERS,
    ),
    png_case(
        "invokeai dpmpp sde karras",
        {"invokeai_metadata": INVOKE_META | {"scheduler": "dpmpp_sde_k"}},
        INVOKE_TOLD | {"sampler": case.DPM_SDE_KARRAS},
        INVOKE_SAMPLERS,
    ),
    png_case(
        "invokeai with graph and workflow",
        {
            "invokeai_metadata": INVOKE_META,
            "invokeai_workflow": {"nodes": [{"data": {"inputs": {"seed": {"value": 1}}}}]},
            "invokeai_graph": {"nodes": {"noise": {"seed": 2, "width": 64, "height": 64}}},
        },
        INVOKE_TOLD,
        INVOKE,
    ),
    png_case(
        "invokeai flux",
        {
            "invokeai_metadata": without(INVOKE_META, "negative_prompt", "cfg_scale", "cfg_rescale_multiplier", "loras")
            | {"generation_mode": "flux_txt2img", "guidance": 4, "scheduler": "euler"}
        },
        without(INVOKE_TOLD, "negative") | {"guidance": 4.0, "sampler": case.EULER},
        INVOKE,
        may_lack=("guidance",),
    ),
    png_case(
        "invokeai image to image",
        {"invokeai_metadata": INVOKE_META | {"generation_mode": "img2img", "strength": 0.6, "init_image": "a.png"}},
        INVOKE_TOLD,
        INVOKE,
        noted=("strength",),
    ),
    png_case("invokeai a graph alone", {"invokeai_graph": {"id": "1", "nodes": {}}}, {}, INVOKE, noted=("InvokeAI",)),
    png_case(
        "invokeai 2",
        {"Dream": DREAM, "sd-metadata": sd_metadata([{"prompt": "a cat, red [dark]", "weight": 1}])},
        DREAM_TOLD,
        INVOKE_2,
    ),
    png_case("invokeai 2 without sd-metadata", {"Dream": DREAM}, DREAM_TOLD, INVOKE_2),
    png_case(
        "invokeai 2 a prompt that looks like switches",
        {
            "Dream": "a cat -sitting on a mat -s 50 -S 42 -W 512 -H 640 -C 7.5 -A k_lms",
            "sd-metadata": sd_metadata([{"prompt": "a cat -sitting on a mat", "weight": 1}]),
        },
        without(DREAM_TOLD, "negative") | {"prompt": "a cat -sitting on a mat"},
        INVOKE_2,
    ),
    png_case(
        "invokeai 2 weighted prompts",
        {"sd-metadata": sd_metadata([{"prompt": "a cat", "weight": 0.7}, {"prompt": "a dog", "weight": 0.3}])},
        without(DREAM_TOLD, "negative", "prompt"),
        INVOKE_2,
        noted=("weight",),
        near={"prompt": "a cat a dog"},
    ),
    png_case(
        "invokeai 1",
        {"Dream": '"a cat, red" -s50 -W512 -H640 -C7.5 -Ak_lms'},
        without(DREAM_TOLD, "negative", "seed"),
        INVOKE_2,
    ),
    png_case(
        "invokeai 2 variations",
        {
            "sd-metadata": sd_metadata(
                [{"prompt": "a cat, red [dark]", "weight": 1}], variations=[{"seed": 9, "weight": 0.2}]
            )
        },
        DREAM_TOLD,
        INVOKE_2,
        noted=("variations",),
    ),
]

CASES = [*INVOKES]
