"""Writing an image with the settings that made it, as PNG, WebP or JPEG.

Twice: as the text of AUTOMATIC1111, which other tools read (PNG text `parameters`, EXIF UserComment), and as JSON,
which holds all (PNG text `t2i_tools`, EXIF ImageDescription). The same image and settings give the same bytes.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from t2i_tools.errors import InputError
from t2i_tools.files import replacing
from t2i_tools.images.settings import read_file
from t2i_tools.images.settings.a1111 import LEAST, NEGATIVE
from t2i_tools.images.settings.sources import CHUNK
from t2i_tools.images.settings.texts import DESCRIPTION, EXIF_IFD, USER_COMMENT
from t2i_tools.models.samplers import Sampler, parse_sampler, sampler_name

FORMATS = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG", ".jpeg": "JPEG"}
TAKEN = re.compile(r"^(?=[ \t]*(?:Steps:|Parameters\s*:|(?:Negative )?Template: ))", re.MULTILINE)
EXIF_LIMIT = 65_000  # bytes that a JPEG has for it


def save_image(image: Image.Image, path: str | Path, settings: Mapping[str, Any]) -> None:
    """Write an image with its settings; the file appears complete or not at all.

    Args:
        image: The image.
        path: Ends in .png, .webp (pixels are kept as they are) or .jpg (quality 95); any other ending gives a PNG.
        settings: Anything JSON can hold; `prompt`, `negative`, `steps`, `scheduler`, `guidance`, `seed` and `model`
            also go into the text for other tools.

    Raises:
        InputError: The place cannot be written, or a JPEG has no room for the settings.
    """
    path = Path(path)
    text = parameters_text({**settings, "width": image.width, "height": image.height})
    kind = FORMATS.get(path.suffix.lower(), "PNG")
    options = _png(text, settings) if kind == "PNG" else _exif(text, settings)
    if kind == "JPEG" and len(options["exif"]) > EXIF_LIMIT:
        raise InputError(f"cannot write {path}: a JPEG has no room for settings this long, a PNG or WebP has")
    qualities: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    with replacing(path) as part:
        image.save(part, format=kind, **options, **qualities.get(kind, {}))


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings in an image file under our names; `read_file` also gives notes and what is not read.

    Raises InputError when the file is no readable image or carries none.
    """
    return read_file(path).settings


def parameters_text(settings: Mapping[str, Any]) -> str:
    """The settings in the format of AUTOMATIC1111: prompt, negative prompt, one line of the fields that are set.

    Words of a prompt that AUTOMATIC1111 or Civitai would take for something else get a backslash, which has no meaning
    there; fewer fields than make a line of settings for them are left out.
    """
    sampler, schedule = _sampler(settings.get("scheduler"))
    size = f"{settings['width']}x{settings['height']}" if "width" in settings and "height" in settings else None
    fields = {
        "Steps": settings.get("steps"),
        "Sampler": sampler,
        "Schedule type": schedule,
        "CFG scale": settings.get("guidance"),
        "Seed": settings.get("seed"),
        "Size": size,
        "Model": settings.get("model"),
    }
    lines = [_escape(settings["prompt"])]
    if settings.get("negative"):
        lines.append(f"{NEGATIVE} {_escape(settings['negative'])}")
    written = [f"{name}: {_quote(value)}" for name, value in fields.items() if value is not None]
    if len(written) >= LEAST:
        lines.append(", ".join(written))
    return "\n".join(lines)


def _png(text: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    info = PngInfo()
    info.add_text("parameters", text)
    info.add_text(CHUNK, json.dumps(dict(settings)))
    return {"pnginfo": info}


def _exif(text: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """UserComment as AUTOMATIC1111 and Civitai write and read it: eight bytes name the code, then UTF-16-BE."""
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = b"UNICODE\0" + text.encode("utf-16-be")
    exif[DESCRIPTION] = f"{CHUNK}:{json.dumps(dict(settings))}"
    return {"exif": exif.tobytes()}


def _sampler(scheduler: str | None) -> tuple[str | None, str | None]:
    """AUTOMATIC1111's names of a sampler and its schedule."""
    return sampler_name(parse_sampler(scheduler) or Sampler(scheduler)) if scheduler else (None, None)


def _escape(prompt: str) -> str:
    return TAKEN.sub(r"\\", prompt).replace(NEGATIVE, NEGATIVE.replace(" ", r"\ "))


def _quote(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r'[,:\n"]', text) else text
