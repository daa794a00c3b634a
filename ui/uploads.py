"""Files that come in: only what was uploaded, of the right type and size, and never a path that somebody names."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from t2i_tools.errors import InputError, first_line
from t2i_tools.files import replacing
from t2i_tools.imagefile import read_settings
from t2i_tools.ui.desk import Desk
from t2i_tools.ui.kinds.generate import start_path

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def settings_of(desk: Desk, given: Any) -> dict[str, Any]:
    """The settings in an uploaded PNG. Raises InputError."""
    path = uploaded(desk, given, [".png"])
    _read_picture(path, desk.options.limits.pixels)
    try:
        return read_settings(path)
    except InputError as error:
        raise InputError(str(error).replace(str(path), path.name)) from error


def keep_start(desk: Desk, given: Any) -> str:
    """Keep an uploaded picture to start from; the name by which the values of a job and a file know it."""
    image = _read_picture(uploaded(desk, given, PICTURES), desk.options.limits.pixels)
    size = f"{image.width}x{image.height}".encode()
    name = hashlib.sha256(size + image.tobytes()).hexdigest()[:32]
    path = start_path(desk.output, name)
    if not path.exists():
        with replacing(path) as part:
            image.save(part, format="PNG")
    return name


def uploaded(desk: Desk, given: Any, suffixes: Sequence[str]) -> Path:
    """The file of an upload: a path that Gradio hands on, or what a client sends for one. Raises InputError."""
    name = given.get("path") if isinstance(given, Mapping) else given
    if not isinstance(name, str):
        raise InputError("no file was uploaded")
    path = Path(name).resolve()
    if not (path.is_relative_to(desk.files) and path.is_file()):
        raise InputError(f"{Path(name).name[:100]!r} was not uploaded here")
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path.name[:100]!r} does not end in {' or '.join(suffixes)}")
    most = desk.options.limits.upload_mib
    if path.stat().st_size > most * 2**20:
        raise InputError(f"{path.name[:100]!r} is larger than the {most} MiB that this server takes")
    return path


def _read_picture(path: Path, most_pixels: int) -> Image.Image:
    """The whole picture, RGB. Raises InputError when it is none, broken, or has 4 times the pixels made here."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > 4 * most_pixels:
                raise InputError(f"{path.name} has {image.width}x{image.height} pixels: that is too large here")
            return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError as error:
        raise InputError(f"{path.name} is not an image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read {path.name}: {first_line(error)}") from error
