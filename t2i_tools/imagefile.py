"""A PNG with the settings that made it, in and out.

Two text chunks: `parameters`, the format of AUTOMATIC1111 that other tools read, and `t2i_tools`, the same settings as
JSON. The same image and settings give the same bytes.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from t2i_tools.errors import InputError, first_line
from t2i_tools.files import replacing

CHUNK = "t2i_tools"
SAMPLERS = {
    "EulerDiscreteScheduler": "Euler",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "HeunDiscreteScheduler": "Heun",
    "KDPM2DiscreteScheduler": "DPM2",
    "KDPM2AncestralDiscreteScheduler": "DPM2 a",
    "LMSDiscreteScheduler": "LMS",
    "PNDMScheduler": "PLMS",
    "UniPCMultistepScheduler": "UniPC",
}
NAMES = {
    "Steps": ("steps", int),
    "Sampler": ("scheduler", str),
    "CFG scale": ("guidance", float),
    "Seed": ("seed", int),
    "Model": ("model", str),
}
# One "Name: value" of the last line; a value with a comma or a colon in it is a JSON string.
FIELD = re.compile(r'\s*(\w[\w /-]*):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')


def save_image(image: Image.Image, path: str | Path, settings: Mapping[str, Any]) -> None:
    """Write a PNG with its settings; the file appears complete or not at all.

    settings: anything JSON can hold; `prompt`, `negative`, `steps`, `scheduler`, `guidance`, `seed` and `model` also
    go into the `parameters` text. Raises InputError when the place cannot be written.
    """
    path = Path(path)
    info = PngInfo()
    info.add_text("parameters", parameters_text({**settings, "width": image.width, "height": image.height}))
    info.add_text(CHUNK, json.dumps(dict(settings)))
    with replacing(path) as part:
        image.save(part, format="PNG", pnginfo=info)


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings a PNG carries: our own JSON chunk, or else the `parameters` text of another tool.

    Raises InputError when the file is no readable image or carries neither.
    """
    try:
        with Image.open(path) as image:
            chunks = {name: text for name, text in image.info.items() if isinstance(text, str)}
    except UnidentifiedImageError as error:
        raise InputError(f"cannot read {path}: not an image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or first_line(error)}") from error
    try:
        settings = json.loads(chunks.get(CHUNK, "null"))
    except ValueError as error:
        raise InputError(f"cannot read the settings in {path}: {error}") from error
    if isinstance(settings, dict):
        return settings
    if "parameters" in chunks:
        return parse_parameters(chunks["parameters"])
    raise InputError(f"{path} carries no settings: it was not written by t2i or was saved again without them")


def parameters_text(settings: Mapping[str, Any]) -> str:
    """The settings in the format of AUTOMATIC1111: prompt, negative prompt, one line of the fields that are set."""
    scheduler = settings.get("scheduler")
    size = f"{settings['width']}x{settings['height']}" if "width" in settings and "height" in settings else None
    fields = {
        "Steps": settings.get("steps"),
        "Sampler": SAMPLERS.get(scheduler, scheduler and scheduler.removesuffix("Scheduler")),
        "CFG scale": settings.get("guidance"),
        "Seed": settings.get("seed"),
        "Size": size,
        "Model": settings.get("model"),
    }
    lines = [settings["prompt"]]
    if settings.get("negative"):
        lines.append(f"Negative prompt: {settings['negative']}")
    lines.append(", ".join(f"{name}: {_quote(value)}" for name, value in fields.items() if value is not None))
    return "\n".join(lines)


def parse_parameters(text: str) -> dict[str, Any]:
    """The inverse of `parameters_text`, under the same names; fields it does not know keep their own."""
    *lines, last = text.rstrip("\n").split("\n")
    if not last.startswith("Steps: "):
        lines, last = [*lines, last], ""
    prompt, _, negative = "\n".join(lines).partition("\nNegative prompt: ")
    fields = {name: _unquote(value) for name, value in FIELD.findall(last)}
    settings: dict[str, Any] = {"prompt": prompt}
    if negative:
        settings["negative"] = negative
    if match := re.fullmatch(r"(\d+)x(\d+)", fields.get("Size", "")):
        del fields["Size"]
        settings["width"], settings["height"] = map(int, match.groups())
    for name, value in fields.items():
        ours, kind = NAMES.get(name, (name, str))
        with suppress(ValueError):
            value = kind(value)
        settings[ours] = value
    return settings


def _quote(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r'[,:\n"]', text) else text


def _unquote(text: str) -> str:
    with suppress(ValueError):
        return json.loads(text) if text.startswith('"') else text
    return text
