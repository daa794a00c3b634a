"""ComfyUI: the graph of nodes that made the image."""

import json
from functools import partial
from typing import Any

from . import case, containers
from .case import Case, without

COMFY = (
    "comfyanonymous/ComfyUI script_examples/basic_api_example.py @03c293a21dcc, comfy_api/latest/_ui.py @0bf30b63c04c"
)
NODES = "comfyanonymous/ComfyUI nodes.py @01094316268c"

TOLD = {
    "prompt": "a cat",
    "negative": "dark",
    "seed": 8566257,
    "steps": 20,
    "guidance": 8.0,
    "width": 512,
    "height": 768,
    "sampler": case.EULER,
}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": "x"}}


def base(**changes: Any) -> dict[str, Any]:
    """ComfyUI's default graph; `changes` are nodes by number, as n3=..., None takes one out."""
    sampler = node(
        "KSampler",
        cfg=8,
        denoise=1,
        latent_image=["5", 0],
        model=["4", 0],
        negative=["7", 0],
        positive=["6", 0],
        sampler_name="euler",
        scheduler="normal",
        seed=8566257,
        steps=20,
    )
    graph = {
        "3": sampler,
        "4": node("CheckpointLoaderSimple", ckpt_name="v1-5.safetensors"),
        "5": node("EmptyLatentImage", batch_size=1, height=768, width=512),
        "6": node("CLIPTextEncode", clip=["4", 1], text="a cat"),
        "7": node("CLIPTextEncode", clip=["4", 1], text="dark"),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    }
    for name, value in changes.items():
        graph[name[1:]] = value
    return {number: value for number, value in graph.items() if value is not None}


def sampled(**inputs: Any) -> dict[str, Any]:
    """The default sampler with other inputs."""
    default = base()["3"]
    return default | {"inputs": default["inputs"] | inputs}


def graph_case(name: str, graph: Any, fields: dict[str, Any], source: str = COMFY, **more: Any) -> Case:
    text = graph if isinstance(graph, str) else json.dumps(graph)
    return Case(name, ".png", lambda path: containers.png(path, {"prompt": text}), fields, source, **more)


ADVANCED = base()["3"]["inputs"]
ADVANCED = node(
    "KSamplerAdvanced",
    add_noise="enable",
    noise_seed=8566257,
    start_at_step=0,
    end_at_step=10000,
    return_with_leftover_noise="disable",
    **{name: value for name, value in ADVANCED.items() if name not in ("seed", "denoise")},
)
FLUX = {
    "5": node("EmptySD3LatentImage", batch_size=1, height=1152, width=896),
    "6": node("CLIPTextEncode", clip=["11", 0], text="a cat"),
    "8": node("VAEDecode", samples=["13", 0], vae=["10", 0]),
    "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    "10": node("VAELoader", vae_name="ae.safetensors"),
    "11": node("DualCLIPLoader", clip_name1="t5.safetensors", clip_name2="clip_l.safetensors", type="flux"),
    "12": node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default"),
    "13": node(
        "SamplerCustomAdvanced",
        noise=["25", 0],
        guider=["22", 0],
        sampler=["16", 0],
        sigmas=["17", 0],
        latent_image=["5", 0],
    ),
    "16": node("KSamplerSelect", sampler_name="euler"),
    "17": node("BasicScheduler", scheduler="simple", steps=20, denoise=1, model=["12", 0]),
    "22": node("BasicGuider", model=["12", 0], conditioning=["26", 0]),
    "25": node("RandomNoise", noise_seed=219670278747233),
    "26": node("FluxGuidance", guidance=3.5, conditioning=["6", 0]),
}
FLUX_TOLD = without(TOLD, "negative") | {"seed": 219670278747233, "width": 896, "height": 1152, "guidance": 3.5}
SECOND_PASS = base(
    n8=node("VAEDecode", samples=["12", 0], vae=["4", 2]),
    n11=node(
        "LatentUpscale", samples=["3", 0], upscale_method="nearest-exact", width=1024, height=1536, crop="disabled"
    ),
    n12=sampled(latent_image=["11", 0], denoise=0.5, seed=1, steps=14),
)
WEB = {0x0110: "prompt:" + json.dumps(base()), 0x010F: "workflow:" + json.dumps({"nodes": []})}

CASES = [
    graph_case("comfyui png", base(), TOLD),
    Case(
        "comfyui png with workflow",
        ".png",
        lambda path: containers.png(
            path, {"prompt": json.dumps(base()), "workflow": json.dumps({"nodes": [], "links": []})}
        ),
        TOLD,
        COMFY,
    ),
    Case("comfyui webp", ".webp", partial(containers.exif_first, tags=WEB, kind="WEBP"), TOLD, COMFY),
    Case(
        "comfyui animated png",
        ".png",
        lambda path: containers.apng(path, {"prompt": json.dumps(base())}),
        TOLD,
        COMFY,
        may_lack=case.FIELDS,
    ),
    Case(
        "comfyui a workflow alone",
        ".png",
        lambda path: containers.png(path, {"workflow": json.dumps({"nodes": [], "links": []})}),
        {},
        COMFY,
        noted=("ComfyUI",),
    ),
    graph_case("comfyui advanced sampler", base(n3=ADVANCED), TOLD, NODES),
    graph_case(
        "comfyui karras",
        base(n3=sampled(sampler_name="dpmpp_2m", scheduler="karras")),
        TOLD | {"sampler": case.DPM_2M_KARRAS},
    ),
    graph_case(
        "comfyui ancestral",
        base(n3=sampled(sampler_name="euler_ancestral", scheduler="normal")),
        TOLD | {"sampler": case.EULER_A},
    ),
    graph_case("comfyui simple", base(n3=sampled(scheduler="simple")), TOLD | {"sampler": case.EULER_TRAILING}),
    graph_case("comfyui flux", FLUX, FLUX_TOLD | {"sampler": case.EULER_TRAILING}, NODES),
    graph_case(
        "comfyui zeroed negative",
        base(n7=node("ConditioningZeroOut", conditioning=["6", 0])),
        without(TOLD, "negative"),
        NODES,
    ),
    graph_case(
        "comfyui loras on the way",
        base(
            n3=sampled(model=["10", 0]),
            n10=node(
                "LoraLoader",
                lora_name="d.safetensors",
                strength_model=0.7,
                strength_clip=1,
                model=["4", 0],
                clip=["4", 1],
            ),
        ),
        TOLD,
        NODES,
    ),
    graph_case(
        "comfyui text from another node",
        base(n6=node("CLIPTextEncode", clip=["4", 1], text=["20", 0]), n20=node("PrimitiveString", value="a cat")),
        TOLD,
        NODES,
        may_lack=("prompt",),
    ),
    graph_case(
        "comfyui numbers from other nodes",
        base(
            n3=sampled(seed=["20", 0], steps=["21", 0]),
            n20=node("Seed (rgthree)", seed=8566257),
            n21=node("PrimitiveInt", value=20),
        ),
        TOLD,
        NODES,
        may_lack=("seed", "steps"),
    ),
    graph_case(
        "comfyui two texts",
        base(n6=node("CLIPTextEncodeSDXL", clip=["4", 1], text_g="a cat", text_l="a dog", width=1024, height=1024)),
        without(TOLD, "prompt"),
        NODES,
        noted=("prompt",),
        near={"prompt": "a cat"},
    ),
    graph_case(
        "comfyui one text twice",
        base(n6=node("CLIPTextEncodeSDXL", clip=["4", 1], text_g="a cat", text_l="a cat", width=1024, height=1024)),
        TOLD,
        NODES,
        may_lack=("prompt",),
    ),
    graph_case(
        "comfyui combined prompts",
        base(
            n3=sampled(positive=["20", 0]),
            n20=node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["21", 0]),
            n21=node("CLIPTextEncode", clip=["4", 1], text="a dog"),
        ),
        without(TOLD, "prompt"),
        NODES,
        noted=("prompt",),
        near={"prompt": "a cat"},
    ),
    graph_case(
        "comfyui controlnet",
        base(
            n3=sampled(positive=["20", 0]),
            n20=node("ControlNetApply", conditioning=["6", 0], control_net=["21", 0], image=["22", 0], strength=1),
            n21=node("ControlNetLoader", control_net_name="canny.safetensors"),
            n22=node("LoadImage", image="a.png"),
        ),
        TOLD,
        NODES,
        noted=("ControlNet",),
    ),
    graph_case(
        "comfyui image to image",
        base(
            n3=sampled(latent_image=["20", 0], denoise=0.6),
            n5=None,
            n20=node("VAEEncode", pixels=["21", 0], vae=["4", 2]),
            n21=node("LoadImage", image="a.png"),
        ),
        without(TOLD, "width", "height"),
        NODES,
        noted=("denoise",),
    ),
    graph_case("comfyui two passes", SECOND_PASS, TOLD, NODES, may_lack=case.FIELDS, noted=("samples",)),
    graph_case(
        "comfyui nodes in a circle", base(n6=node("CLIPTextEncode", text=["6", 0])), without(TOLD, "prompt"), NODES
    ),
    graph_case(
        "comfyui not quite json",
        json.dumps(base()).replace('"_meta": {"title": "x"}', '"is_changed": [NaN]'),
        TOLD,
        "civitai/civitai src/utils/metadata/comfy.metadata.ts cleanBadJson @ebed66163038",
    ),
    graph_case("comfyui links to nowhere", base(n5=None, n7=None), without(TOLD, "width", "height", "negative"), NODES),
    graph_case(
        "comfyui settings of another tool as text",
        base(n6=node("CLIPTextEncode", clip=["4", 1], text="a cat\nSteps: 3, Sampler: DDIM, Seed: 4, Size: 64x64")),
        TOLD | {"prompt": "a cat\nSteps: 3, Sampler: DDIM, Seed: 4, Size: 64x64"},
    ),
    graph_case("comfyui a graph without sampler", {"1": node("LoadImage", image="a.png")}, {}, noted=("graph",)),
    graph_case("comfyui no graph", "[1, 2]", {}, noted=("",)),
]
