"""Files as other tools write them: each function follows the tool's own writer, named above it, none the reader here.

What a function is given is what a reader must give back.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

USER_COMMENT, EXIF_IFD, MAKE, MODEL, SOFTWARE, MAKER_NOTE = 0x9286, 0x8769, 0x010F, 0x0110, 0x0131, 0x927C


@dataclass(frozen=True)
class Made:
    """What somebody typed into a tool."""

    prompt: str = "two cats, one: asleep"
    negative: str = "dog"
    seed: int = 1234567890
    steps: int = 28
    guidance: float = 6.5
    width: int = 832
    height: int = 1216
    model: str = "dreamshaper_8"


def image() -> Image.Image:
    return Image.linear_gradient("L").resize((16, 24)).convert("RGB")


def png(path: Path, **texts: str) -> None:
    info = PngInfo()
    for name, text in texts.items():
        try:
            info.add_text(name.replace("__", "-"), text)
        except UnicodeEncodeError:
            info.add_itxt(name, text)
    image().save(path, format="PNG", pnginfo=info)


def unicode_comment(text: str, order: str = "be") -> bytes:
    """As piexif.helper.UserComment.dump(text, encoding="unicode") makes it, which A1111 uses (modules/images.py)."""
    return b"UNICODE\0" + text.encode(f"utf-16-{order}")


def with_exif(path: Path, comment: Any, kind: str, **more: Any) -> None:
    """PNG, JPEG or WebP with an EXIF UserComment in the Exif part, as A1111 and Civitai write it."""
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = comment
    for tag, value in more.items():
        exif[int(tag[1:], 16)] = value
    image().save(path, format=kind, exif=exif.tobytes())


def quote(value: Any) -> Any:
    """A1111 modules/infotext_utils.py quote()."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",\n:") else value


def infotext(made: Made, fields: dict[str, Any], negative_always: bool = False) -> str:
    """A1111 modules/processing.py create_infotext(): prompt, negative prompt where there is one, one line of fields."""
    line = ", ".join(name if name == value else f"{name}: {quote(value)}" for name, value in fields.items())
    negative = f"\nNegative prompt: {made.negative}" if made.negative or negative_always else ""
    return f"{made.prompt}{negative}\n{line}".strip()


# AUTOMATIC1111/stable-diffusion-webui modules/processing.py create_infotext
def a1111_text(made: Made, sampler: str = "DPM++ 2M", schedule: str | None = "Karras", **more: Any) -> str:
    fields = {"Steps": made.steps, "Sampler": sampler, "Schedule type": schedule, "CFG scale": made.guidance}
    fields |= {
        "Seed": made.seed,
        "Size": f"{made.width}x{made.height}",
        "Model hash": "879db523c3",
        "Model": made.model,
    }
    fields |= {**more, "Version": "v1.10.1"}
    return infotext(made, {name: value for name, value in fields.items() if value is not None})


# lllyasviel/stable-diffusion-webui-forge modules/processing.py: distilled CFG beside CFG, "f2.0.1v1.10.1-..."
def forge_flux_text(made: Made) -> str:
    fields = {"Steps": made.steps, "Sampler": "Euler", "Schedule type": "Simple", "CFG scale": 1}
    fields |= {"Distilled CFG Scale": made.guidance, "Seed": made.seed, "Size": f"{made.width}x{made.height}"}
    fields |= {"Model hash": "275ef623d3", "Model": made.model, "Version": "f2.0.1v1.10.1-previous-665-gae278f79"}
    return infotext(made, fields | {"Module 1": "ae", "Module 2": "clip_l", "Module 3": "t5xxl_fp16"})


# vladmandic/sdnext modules/processing_info.py create_infotext: size after steps, negative also where it is empty
def sdnext_text(made: Made) -> str:
    fields = {"Steps": made.steps, "Size": f"{made.width}x{made.height}", "Sampler": "Euler a", "Seed": made.seed}
    fields |= {
        "CFG scale": made.guidance,
        "App": "SD.Next",
        "Version": "0c7038e",
        "Pipeline": "StableDiffusionPipeline",
    }
    return infotext(made, fields | {"Operations": "txt2img", "Model": made.model}, negative_always=True)


# Civitai's generator: JSON in fields without quotes, width and height once more; EXIF UserComment
def civitai_text(made: Made) -> str:
    resources = [
        {"type": "checkpoint", "modelVersionId": 128713, "modelName": "Dream, Shaper", "modelVersionName": "8"}
    ]
    resources += [
        {"type": "lora", "weight": 0.6, "modelVersionId": 62833, "modelName": "Detail", "modelVersionName": "1"}
    ]
    line = f"Steps: {made.steps}, Sampler: DPM++ 2M Karras, CFG scale: {made.guidance}, Seed: {made.seed}, "
    line += f"Size: {made.width}x{made.height}, Clip skip: 2, width: 64, height: 8, "
    line += "Created Date: 2024-09-23T06:17:42.9952Z, "
    line += f"Civitai resources: {json.dumps(resources, separators=(',', ':'))}, Civitai metadata: {{}}"
    return f"{made.prompt}\nNegative prompt: {made.negative}\n{line}"


# Civitai's generator through ComfyUI: a text of JSON in JSON
def civitai_extra(made: Made) -> str:
    extra = {"prompt": made.prompt, "negativePrompt": made.negative, "cfgScale": made.guidance, "steps": made.steps}
    extra |= {
        "sampler": "euler_ancestral",
        "seed": made.seed,
        "width": made.width,
        "height": made.height,
        "clipSkip": 2,
    }
    extra["resources"] = [{"modelVersionId": 128713, "strength": 1}]
    graph = {"11": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 3}}}
    return json.dumps(graph | {"extra": {"airs": ["urn:air:x"]}, "extraMetadata": json.dumps(extra)})


# lllyasviel/Fooocus modules/meta_parser.py FooocusMetadataParser.to_string, modules/async_worker.py save_and_log
def fooocus_json(made: Made) -> str:
    res = {"prompt": "cats", "negative_prompt": "", "prompt_expansion": "cats, sharp", "styles": "['Fooocus V2']"}
    res |= {"performance": "Speed", "steps": made.steps, "resolution": str((made.width, made.height))}
    res |= {"guidance_scale": made.guidance, "sharpness": 2.0, "adm_guidance": "(1.5, 0.8, 0.3)", "refiner_switch": 0.5}
    res |= {"sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras", "seed": str(made.seed), "vae": "Default (model)"}
    res |= {"metadata_scheme": "fooocus", "version": "Fooocus v2.5.5", "refiner_model": "None"}
    res |= {"full_prompt": made.prompt.split(", "), "full_negative_prompt": made.negative.split(", ")}
    res |= {"base_model": made.model, "base_model_hash": "4496b36d48", "lora_combined_1": "offset : 0.1"}
    return json.dumps(dict(sorted((res | {"loras": [["offset", 0.1, "e1eef4d2"]]}).items())))


# lllyasviel/Fooocus modules/meta_parser.py A1111MetadataParser.to_string
def fooocus_a1111_text(made: Made) -> str:
    fields = {"Steps": made.steps, "Sampler": "DPM++ 2M SDE Karras", "Seed": made.seed}
    fields |= {"Size": f"{made.width}x{made.height}", "CFG scale": made.guidance, "Sharpness": 2.0}
    fields |= {
        "ADM Guidance": "(1.5, 0.8, 0.3)",
        "Model": made.model,
        "Model hash": "4496b36d48",
        "Performance": "Speed",
    }
    fields |= {"Scheduler": "karras", "VAE": "Default (model)", "Raw prompt": "cats\nasleep", "Raw negative prompt": ""}
    fields |= {"Lora hashes": "offset: e1eef4d2", "Lora weights": "offset: 0.1", "Version": "Fooocus v2.5.5"}
    return infotext(made, fields)


def fooocus_exif(path: Path, text: str, kind: str, scheme: str) -> None:
    """lllyasviel/Fooocus modules/meta_parser.py get_exif: plain texts in the first part of the EXIF."""
    exif = Image.Exif()
    exif[USER_COMMENT], exif[SOFTWARE], exif[MAKER_NOTE] = text, "Fooocus v2.5.5", scheme
    image().save(path, format=kind, exif=exif.tobytes())


# mcmonkeyprojects/SwarmUI src/Text2Image/T2IParamInput.cs GenFullMetadataObject
def swarm_json(made: Made, flux: bool = False) -> str:
    params = {"prompt": made.prompt, "negativeprompt": made.negative, "model": made.model, "images": 1}
    params |= {"seed": made.seed, "steps": made.steps, "cfgscale": 1.0 if flux else made.guidance, "aspectratio": "2:3"}
    params |= {"width": made.width, "height": made.height, "sampler": "dpmpp_2m", "scheduler": "karras"}
    params |= {"fluxguidancescale": made.guidance} if flux else {}
    params |= {"loras": ["detail"], "loraweights": ["0.5"], "swarm_version": "0.9.8.1"}
    return json.dumps({"sui_image_params": params, "sui_extra_data": {"date": "2026-08-21"}}, indent=4)


# invoke-ai/InvokeAI invokeai/app/invocations/metadata.py CoreMetadataInvocation
def invoke3_json(made: Made, flux: bool = False) -> str:
    data = {"generation_mode": "flux_txt2img" if flux else "txt2img", "positive_prompt": made.prompt}
    data |= {"negative_prompt": made.negative, "width": made.width, "height": made.height, "seed": made.seed}
    data |= {"rand_device": "cpu", "cfg_scale": 1.0 if flux else made.guidance, "steps": made.steps}
    data |= {"guidance": made.guidance} if flux else {}
    data |= {"scheduler": "euler" if flux else "dpmpp_2m_k", "clip_skip": 0}
    data |= {"model": {"key": "9c7", "hash": "blake3:1", "name": made.model, "base": "sd-1", "type": "main"}}
    return json.dumps(data | {"loras": [{"model": {"name": "detail"}, "weight": 0.5}], "app_version": "5.0.0"})


# invoke-ai/InvokeAI 2.x ldm/invoke/pngwriter.py, backend/invoke_ai_web_server.py parameters_to_generated_image_metadata
def invoke2_json(made: Made) -> str:
    prompt = f"{made.prompt} [{made.negative}]" if made.negative else made.prompt
    data = {"type": "txt2img", "postprocessing": None, "sampler": "k_euler_a", "variations": [], "steps": made.steps}
    data |= {"prompt": [{"prompt": prompt, "weight": 1.0}], "cfg_scale": made.guidance, "seed": made.seed}
    data |= {"width": made.width, "height": made.height, "threshold": 0, "perlin": 0, "seamless": False}
    about = {"model": "stable diffusion", "model_weights": made.model, "model_hash": "cc6cb27", "app_version": "2.3.5"}
    return json.dumps(about | {"image": data})


def dream_text(made: Made) -> str:
    """ldm/invoke/args.py dream_prompt_str."""
    size = f"-s {made.steps} -S {made.seed} -W {made.width} -H {made.height} -C {made.guidance}"
    return (
        f'"{made.prompt} [{made.negative}]" {size} -A k_euler_a'
        if made.negative
        else f'"{made.prompt}" {size} -A k_lms'
    )


# NovelAI: PNG texts Title, Description, Software, Source, Comment
def novelai_texts(made: Made) -> dict[str, str]:
    comment = {
        "prompt": made.prompt,
        "steps": made.steps,
        "height": made.height,
        "width": made.width,
        "uc": made.negative,
    }
    comment |= {"scale": made.guidance, "uncond_scale": 0.0, "cfg_rescale": 0.0, "seed": made.seed, "n_samples": 1}
    comment |= {"noise_schedule": "karras", "sampler": "k_dpmpp_2m", "request_type": "PromptGenerateRequest"}
    about = {"Title": "NovelAI generated image", "Description": made.prompt, "Software": "NovelAI"}
    return about | {"Source": "NovelAI Diffusion V4.5 C02D4F98", "Comment": json.dumps(comment)}


# Draw Things: XMP with JSON in exif:UserComment
def drawthings_xmp(made: Made) -> str:
    data = {"c": made.prompt, "uc": made.negative, "model": made.model, "sampler": "DPM++ 2M Karras", "seed": made.seed}
    data |= {
        "scale": made.guidance,
        "size": f"{made.width}x{made.height}",
        "steps": made.steps,
        "strength": 1,
        "lora": [],
    }
    text = json.dumps(data).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        "<rdf:Description><xmp:CreatorTool>Draw Things</xmp:CreatorTool>"
        f'<exif:UserComment><rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt></exif:UserComment>'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    )


# Comfy-Org/ComfyUI nodes.py SaveImage: the graph as the API takes it, in "prompt"
def comfy_graph(made: Made, **sampler: Any) -> dict[str, Any]:
    inputs = {"seed": made.seed, "steps": made.steps, "cfg": made.guidance, "sampler_name": "dpmpp_2m"}
    inputs |= {"scheduler": "karras", "denoise": 1.0, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0]}
    return {
        "3": {"class_type": "KSampler", "inputs": inputs | {"latent_image": ["5", 0]} | sampler},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": f"{made.model}.safetensors"}},
        "5": {
            "class_type": "EmptyLatentImage",
            "inputs": {"width": made.width, "height": made.height, "batch_size": 1},
        },
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": made.prompt, "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": made.negative, "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}},
    }


def comfy_flux_graph(made: Made) -> dict[str, Any]:
    """The parts apart, as in ComfyUI's own example for Flux: no negative prompt, guidance as a node."""
    return {
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["30", 0], "clip": ["11", 0]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["13", 0], "vae": ["10", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0]}},
        "12": {"class_type": "UNETLoader", "inputs": {"unet_name": f"{made.model}.safetensors"}},
        "13": {
            "class_type": "SamplerCustomAdvanced",
            "inputs": {
                "noise": ["25", 0],
                "guider": ["22", 0],
                "sampler": ["16", 0],
                "sigmas": ["17", 0],
                "latent_image": ["27", 0],
            },
        },
        "16": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "17": {
            "class_type": "BasicScheduler",
            "inputs": {"scheduler": "simple", "steps": made.steps, "denoise": 1, "model": ["12", 0]},
        },
        "22": {"class_type": "BasicGuider", "inputs": {"model": ["12", 0], "conditioning": ["26", 0]}},
        "25": {"class_type": "RandomNoise", "inputs": {"noise_seed": made.seed}},
        "26": {"class_type": "FluxGuidance", "inputs": {"guidance": made.guidance, "conditioning": ["6", 0]}},
        "27": {"class_type": "EmptySD3LatentImage", "inputs": {"width": made.width, "height": ["31", 0]}},
        "30": {"class_type": "PrimitiveString", "inputs": {"value": made.prompt}},
        "31": {"class_type": "PrimitiveInt", "inputs": {"value": made.height}},
    }


def comfy_exif(path: Path, graph: dict[str, Any], kind: str) -> None:
    """Comfy-Org/ComfyUI comfy_api/latest/_ui.py _create_webp_metadata."""
    exif = Image.Exif()
    exif[MODEL], exif[MAKE] = f"prompt:{json.dumps(graph)}", f"workflow:{json.dumps({'nodes': []})}"
    image().save(path, format=kind, exif=exif.tobytes())


Writer = Callable[[Made, Path], None]
KARRAS, EULER_A = "dpm2m karras", "euler a"
# tool -> (its name in reports, what its sampler is, how it writes)
WRITERS: dict[str, tuple[str, str, str, Writer]] = {
    "a1111.png": ("AUTOMATIC1111", KARRAS, "", lambda m, p: png(p, parameters=a1111_text(m))),
    "a1111-old.png": (
        "AUTOMATIC1111",
        KARRAS,
        "",
        lambda m, p: png(p, parameters=a1111_text(m, "DPM++ 2M Karras", None, ENSD=31337)),
    ),
    "a1111.jpg": ("AUTOMATIC1111", KARRAS, "", lambda m, p: with_exif(p, unicode_comment(a1111_text(m)), "JPEG")),
    "a1111.webp": ("AUTOMATIC1111", KARRAS, "", lambda m, p: with_exif(p, unicode_comment(a1111_text(m)), "WEBP")),
    "forge.png": ("Forge", "euler simple", "", lambda m, p: png(p, parameters=forge_flux_text(m))),
    "sdnext.png": ("SD.Next", EULER_A, "", lambda m, p: png(p, parameters=sdnext_text(m))),
    "sdnext.jpg": ("SD.Next", EULER_A, "", lambda m, p: with_exif(p, unicode_comment(sdnext_text(m)), "JPEG")),
    "civitai.jpg": ("Civitai", KARRAS, "model", lambda m, p: with_exif(p, unicode_comment(civitai_text(m)), "JPEG")),
    "civitai-le.png": (
        "Civitai",
        KARRAS,
        "model",
        lambda m, p: with_exif(p, unicode_comment(civitai_text(m), "le"), "PNG"),
    ),
    "civitai-extra.png": ("Civitai", EULER_A, "model", lambda m, p: png(p, prompt=civitai_extra(m))),
    "civitai-extra.jpg": (
        "Civitai",
        EULER_A,
        "model",
        lambda m, p: with_exif(p, unicode_comment(civitai_extra(m)), "JPEG"),
    ),
    "fooocus.png": (
        "Fooocus",
        "dpm2msde karras",
        "",
        lambda m, p: png(p, parameters=fooocus_json(m), fooocus_scheme="fooocus"),
    ),
    "fooocus-a1111.png": (
        "Fooocus",
        "dpm2msde karras",
        "",
        lambda m, p: png(p, parameters=fooocus_a1111_text(m), fooocus_scheme="a1111"),
    ),
    "fooocus.jpg": ("Fooocus", "dpm2msde karras", "", lambda m, p: fooocus_exif(p, fooocus_json(m), "JPEG", "fooocus")),
    "swarm.png": ("SwarmUI", KARRAS, "", lambda m, p: png(p, parameters=swarm_json(m))),
    "swarm-flux.png": ("SwarmUI", KARRAS, "", lambda m, p: png(p, parameters=swarm_json(m, flux=True))),
    "swarm.jpg": ("SwarmUI", KARRAS, "", lambda m, p: with_exif(p, unicode_comment(swarm_json(m), "le"), "JPEG")),
    "invoke3.png": ("InvokeAI", KARRAS, "", lambda m, p: png(p, invokeai_metadata=invoke3_json(m))),
    "invoke-flux.png": ("InvokeAI", "euler", "", lambda m, p: png(p, invokeai_metadata=invoke3_json(m, flux=True))),
    "invoke2.png": ("InvokeAI", EULER_A, "", lambda m, p: png(p, Dream=dream_text(m), sd__metadata=invoke2_json(m))),
    "novelai.png": ("NovelAI", KARRAS, "model", lambda m, p: png(p, **novelai_texts(m))),
    "comfy.png": (
        "ComfyUI",
        KARRAS,
        "",
        lambda m, p: png(p, prompt=json.dumps(comfy_graph(m)), workflow=json.dumps({"nodes": []})),
    ),
    "comfy-flux.png": (
        "ComfyUI",
        "euler simple",
        "negative",
        lambda m, p: png(p, prompt=json.dumps(comfy_flux_graph(m))),
    ),
    "comfy.webp": ("ComfyUI", KARRAS, "", lambda m, p: comfy_exif(p, comfy_graph(m), "WEBP")),
    "comfy.jpg": ("ComfyUI", KARRAS, "", lambda m, p: comfy_exif(p, comfy_graph(m), "JPEG")),
    "drawthings.png": ("Draw Things", KARRAS, "", lambda m, p: png(p, **{"XML:com.adobe.xmp": drawthings_xmp(m)})),
}
