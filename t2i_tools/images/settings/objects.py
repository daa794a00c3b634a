"""JSON of tools that write one flat object: Fooocus, SwarmUI, InvokeAI, NovelAI, Civitai, Draw Things and others."""

import re
from collections.abc import Mapping
from typing import Any

from t2i_tools.errors import InputError
from t2i_tools.images.settings.reading import FileSettings, Reading, json_object, number, shown

Fields = Mapping[str, Any]
BRACKETS = re.compile(r"\[([^\[\]]*)\]")
SWITCH = re.compile(r"-([sSWHCA])\s{0,4}([\w.]{1,30})")
EASY = {"num_inference_steps", "guidance_scale", "sampler_name"}  # fields by which Easy Diffusion is known
# Fields that change the image and have no counterpart here.
ACTING = frozenset(
    (
        *("clip_skip", "clipSkip", "clipstopatlayer", "strength", "init_image", "initimage", "initimagecreativity"),
        *(
            "refinermodel",
            "refinermethod",
            "refinerupscale",
            "refiner_model",
            "controlnets",
            "ipAdapters",
            "t2iAdapters",
        ),
        *(
            "variationseed",
            "variationseedstrength",
            "cfg_rescale",
            "cfg_rescale_multiplier",
            "seamless_x",
            "seamless_y",
        ),
        *("sharpness", "adm_guidance", "adaptive_cfg", "freeu", "postprocessing", "variations", "threshold", "perlin"),
        *("hiresFix", "hires_fix", "resources", "v4_prompt", "characterPrompts", "seamless", "hrf_enabled", "vae"),
        *("prompt_strength", "use_vae_model", "use_controlnet_model", "use_hypernetwork_model", "tiling"),
        *("distilled_guidance_scale", "denoise", "start_step"),
    )
)
NOTHING: tuple[Any, ...] = (None, "", 0, 0.0, False, [], {}, "None", "Default (model)", "(1.0, 1.0, 1.0, 1.0)")


def read_object(data: Fields) -> FileSettings | None:
    """The settings in an object whose keys name the tool; None for one that is not known."""
    if isinstance(data.get("sui_image_params"), dict):
        return read_swarmui(data["sui_image_params"])
    if isinstance(data.get("extraMetadata"), str):
        return read_civitai(data)
    if data.get("software") == "RuinedFooocus":
        return read_ruined(data)
    if EASY.issubset(data):
        return read_easydiffusion(data)
    if "full_prompt" in data or "base_model" in data or "metadata_scheme" in data:
        return read_fooocus(data)
    if "positive_prompt" in data and "app_version" in data:
        return read_invokeai(data)
    if isinstance(data.get("Comment"), str):
        return read_novelai(data["Comment"])
    return None


def read_swarmui(data: Fields) -> FileSettings:
    """SwarmUI: "sui_image_params", names without blanks in lower case."""
    reading = Reading("SwarmUI")
    reading.take_text("prompt", data.get("prompt", ""))
    reading.take_text("negative", data.get("negativeprompt"))
    _take_common(reading, data, "cfgscale", "fluxguidancescale")
    reading.take_sampler(data.get("sampler"), data.get("scheduler"))
    reading.take_text("model", data.get("model"))
    names, scales = data.get("loras"), data.get("loraweights")
    if isinstance(names, list):
        scales = scales if isinstance(scales, list) else []
        for place, name in enumerate(names):
            reading.take_lora(name, scales[place] if place < len(scales) else 1.0)
    used = "prompt negativeprompt cfgscale fluxguidancescale seed steps width height sampler scheduler model"
    return _finish(reading, data, f"{used} loras loraweights")


def read_fooocus(data: Fields) -> FileSettings:
    """Fooocus in its own scheme: "full_prompt" is what was drawn, "prompt" what was typed."""
    reading = Reading("Fooocus")
    for ours, full, typed in (
        ("prompt", "full_prompt", "prompt"),
        ("negative", "full_negative_prompt", "negative_prompt"),
    ):
        drawn = data.get(full)
        if isinstance(drawn, list) and all(isinstance(text, str) for text in drawn):
            drawn = ", ".join(drawn)
        text = drawn if isinstance(drawn, str) else data.get(typed)
        reading.take_text(ours, text)
        if isinstance(drawn, str) and drawn != data.get(typed):
            reading.note(f"the {ours} is the one that Fooocus has expanded; what was typed is in the field {typed!r}")
    _take_common(reading, data, "guidance_scale")
    resolution = re.findall(r"\d{1,9}", str(data.get("resolution", ""))[:40])
    reading.take_size(*(resolution if len(resolution) == 2 else (data.get("resolution"), None)))
    reading.take_sampler(data.get("sampler"), data.get("scheduler"))
    reading.take_text("model", data.get("base_model"))
    for lora in data["loras"] if isinstance(data.get("loras"), list) else ():
        if isinstance(lora, list) and len(lora) >= 2:
            reading.take_lora(lora[0], lora[1])
        else:
            reading.take_lora(lora)
    used = "full_prompt full_negative_prompt guidance_scale seed steps resolution sampler scheduler base_model loras"
    return _finish(reading, data, used)


def read_ruined(data: Fields) -> FileSettings:
    """RuinedFooocus, whose names are not those of Fooocus."""
    reading = Reading("RuinedFooocus")
    reading.take_text("prompt", data.get("Prompt", ""))
    reading.take_text("negative", data.get("Negative"))
    _take_common(reading, data, "cfg")
    reading.take_sampler(data.get("sampler_name"), data.get("scheduler"))
    reading.take_text("model", data.get("base_model_name"))
    for lora in data["loras"] if isinstance(data.get("loras"), list) else ():
        scale, _, name = str(lora[1] if isinstance(lora, list) and len(lora) == 2 else lora)[:300].partition(" - ")
        reading.take_lora(name, scale)
    used = "Prompt Negative cfg seed steps width height sampler_name scheduler base_model_name loras"
    return _finish(reading, data, used)


def read_easydiffusion(data: Fields) -> FileSettings:
    """Easy Diffusion: an object in JPEG and WebP, one text per field in PNG, where None is a word."""
    data = {name: value for name, value in data.items() if value not in ("None", "False")}
    reading = Reading("Easy Diffusion")
    reading.take_text("prompt", data.get("prompt", ""))
    reading.take_text("negative", data.get("negative_prompt"))
    _take_common(reading, {**data, "steps": data.get("num_inference_steps")}, "guidance_scale")
    reading.take_sampler(data.get("sampler_name"), data.get("scheduler_name"))
    reading.take_text("model", data.get("use_stable_diffusion_model"))
    if data.get("use_lora_model"):
        reading.note(f"not used here: use_lora_model {shown(str(data['use_lora_model']))}")
    used = "prompt negative_prompt num_inference_steps guidance_scale seed width height sampler_name scheduler_name"
    return _finish(reading, data, f"{used} use_stable_diffusion_model")


def read_invokeai(data: Fields) -> FileSettings:
    """InvokeAI from 3.0 on: "invokeai_metadata". Of Flux "guidance" is what diffusers calls guidance_scale."""
    reading = Reading("InvokeAI")
    reading.take_text("prompt", data.get("positive_prompt", ""))
    reading.take_text("negative", data.get("negative_prompt"))
    _take_common(reading, data, "cfg_scale", "guidance")
    reading.take_sampler(data.get("scheduler"))
    reading.take_text("model", _model_name(data.get("model")))
    for lora in data["loras"] if isinstance(data.get("loras"), list) else ():
        if isinstance(lora, dict):
            reading.take_lora(_model_name(lora.get("model") or lora.get("lora")), lora.get("weight", 1.0))
    used = "positive_prompt negative_prompt cfg_scale guidance seed steps width height scheduler model loras"
    return _finish(reading, data, used)


def read_invokeai_2(data: Fields) -> FileSettings:
    """InvokeAI up to 2.3: "sd-metadata"; what stands in square brackets in the prompt is the negative prompt."""
    image = data.get("image")
    if not isinstance(image, dict):
        raise InputError("its JSON has no 'image' as in InvokeAI's files")
    reading = Reading("InvokeAI")
    prompts = image.get("prompt")
    if isinstance(prompts, list):
        texts = [one.get("prompt") for one in prompts if isinstance(one, dict)]
        if len(texts) > 1:
            reading.note(f"the prompt is {len(texts)} weighted ones: they are put together without their weights")
        prompts = " ".join(text for text in texts if isinstance(text, str))
    _take_bracketed(reading, prompts)
    _take_common(reading, image, "cfg_scale")
    reading.take_sampler(image.get("sampler"))
    reading.take_text("model", data.get("model_weights"))
    reading.keep({name: value for name, value in data.items() if name not in ("image", "model_weights")})
    return _finish(reading, image, "prompt cfg_scale seed steps width height sampler")


def read_dream(text: str) -> FileSettings:
    """InvokeAI 1 and 2: "Dream", a prompt in quotes and switches behind it."""
    reading = Reading("InvokeAI")
    quoted, end, switches = text.rpartition('" ')
    switches = switches if end else text
    values = dict(SWITCH.findall(switches[:2000]))
    _take_bracketed(reading, quoted.removeprefix('"') if end else text.partition(" -")[0].strip('"'))
    reading.take_steps(values.get("s"))
    reading.take_seed(values.get("S"))
    reading.take_guidance(values.get("C"))
    reading.take_size(values.get("W"), values.get("H"))
    reading.take_sampler(values.get("A"))
    if set(re.findall(r"-([IfGUvV])", switches[:2000])):
        reading.note("not used here: switches of this text for other images, upscaling or variations")
    return reading.result()


def read_novelai(comment: str) -> FileSettings:
    """NovelAI: the text "Comment" is an object; "uc" is the negative prompt, "scale" the guidance."""
    data = json_object(comment)
    if data is None:
        raise InputError("its 'Comment' is not a JSON object as in NovelAI's files")
    reading = Reading("NovelAI")
    reading.take_text("prompt", data.get("prompt", ""))
    reading.take_text("negative", data.get("uc"))
    _take_common(reading, data, "scale")
    reading.take_sampler(data.get("sampler"), data.get("noise_schedule"))
    return _finish(reading, data, "prompt uc scale seed steps width height sampler noise_schedule")


def read_civitai(data: Fields) -> FileSettings:
    """Civitai's generator: "extraMetadata" is a text of JSON beside the graph that it ran."""
    extra = json_object(data["extraMetadata"])
    if extra is None:
        raise InputError("its 'extraMetadata' is not a JSON object as in Civitai's files")
    reading = Reading("Civitai")
    reading.take_text("prompt", extra.get("prompt", ""))
    reading.take_text("negative", extra.get("negativePrompt"))
    _take_common(reading, extra, "cfgScale")
    reading.take_sampler(extra.get("sampler"), extra.get("scheduler"))
    return _finish(reading, extra, "prompt negativePrompt cfgScale seed steps width height sampler scheduler")


def read_drawthings(data: Fields) -> FileSettings:
    """Draw Things: "c" is the prompt, "uc" the negative one, "scale" the guidance."""
    reading = Reading("Draw Things")
    reading.take_text("prompt", data.get("c", ""))
    reading.take_text("negative", data.get("uc"))
    _take_common(reading, data, "scale")
    width, _, height = str(data.get("size", ""))[:40].partition("x")
    reading.take_size(width or None, height or None)
    reading.take_sampler(data.get("sampler"))
    reading.take_text("model", data.get("model"))
    for lora in data["lora"] if isinstance(data.get("lora"), list) else ():
        if isinstance(lora, dict):
            reading.take_lora(lora.get("model") or lora.get("file"), lora.get("weight", 1.0))
    strength = {} if data.get("strength") in (1, None) else {"strength": data["strength"]}
    used = "c uc scale seed steps size sampler model lora strength"
    return _finish(
        reading, {**{k: v for k, v in data.items() if k != "strength"}, **strength}, used.replace(" strength", "")
    )


def _take_common(reading: Reading, data: Fields, scale: str, distilled: str | None = None) -> None:
    """Seed, steps, size and guidance; the distilled guidance of Flux goes before the scale of two passes."""
    reading.take_seed(data.get("seed"))
    reading.take_steps(data.get("steps"))
    if "width" in data or "height" in data:
        reading.take_size(data.get("width"), data.get("height"))
    if distilled and data.get(distilled) is not None:
        reading.take_guidance(data[distilled])
        if number(data.get(scale)) not in (None, 1.0):
            reading.note(f"not used here: {scale} {number(data[scale]):g} beside {distilled}")
    else:
        reading.take_guidance(data.get(scale))


def _take_bracketed(reading: Reading, text: Any) -> None:
    if not isinstance(text, str):
        reading.take_text("prompt", "" if text is None else text)
        return
    reading.take_text("prompt", re.sub(" {2,}", " ", BRACKETS.sub("", text)).strip() if "[" in text else text)
    reading.take_text("negative", " ".join(BRACKETS.findall(text)))


def _finish(reading: Reading, data: Fields, used: str) -> FileSettings:
    """The result, with all other fields kept; those that would change the image are noted."""
    reading.keep(data, frozenset(used.split()))
    return reading.result(frozenset(name for name in ACTING if not _idle(data.get(name))))


def _idle(value: Any) -> bool:
    """Whether a field's value changes nothing."""
    return any(value is one or (type(value) is type(one) and value == one) for one in NOTHING)


def _model_name(model: Any) -> Any:
    """The name in InvokeAI's description of a model, which was a text once."""
    return model.get("name") or model.get("model_name") if isinstance(model, dict) else model
