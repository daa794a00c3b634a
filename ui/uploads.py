"""Files that come in: only what was uploaded, of the right type and size, and never a path that somebody names."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from t2i_tools.errors import InputError, T2IError, first_line
from t2i_tools.files import replacing
from t2i_tools.imagefile import read_settings
from t2i_tools.ui.desk import Desk
from t2i_tools.ui.disk import check_room, make_room
from t2i_tools.ui.kinds.generate import start_path

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
TOKEN_MIB = 1  # a vector for each text encoder takes some kilobytes


def settings_of(desk: Desk, given: Any) -> dict[str, Any]:
    """The settings in an uploaded PNG. Raises InputError."""
    path = uploaded(desk, given, [".png"])
    _read_picture(path, desk.options.limits.pixels)
    with without_folders(path):
        return read_settings(path)


def keep_start(desk: Desk, given: Any) -> str:
    """Keep an uploaded picture to start from; the name by which the values of a job and a file know it."""
    image = _read_picture(uploaded(desk, given, PICTURES), desk.options.limits.pixels)
    size = f"{image.width}x{image.height}".encode()
    name = hashlib.sha256(size + image.tobytes()).hexdigest()[:32]
    path = start_path(desk.output, name)
    if path.exists():
        path.touch()  # it is in use again: older ones go first
    else:
        with replacing(path) as part:
            image.save(part, format="PNG")
        make_room(desk)
    return name


def keep_token(desk: Desk, given: Any) -> str:
    """Put an uploaded count token on the shelf; its name there. Raises InputError."""
    from t2i_tools.counting import CountToken

    path = uploaded(desk, given, [".safetensors"], TOKEN_MIB)
    with without_folders(path):
        CountToken.load(path)
    content, name = path.read_bytes(), re.sub(r"[^\w.-]+", "-", path.stem)[:60].strip("-.") or "token"
    there = desk.shelf.tokens().get(name)
    if there and there.read_bytes() != content:
        name += f"-{hashlib.sha256(content).hexdigest()[:8]}"
    check_room(desk, desk.shelf.own_tokens, len(content))
    with replacing(desk.shelf.own_tokens / f"{name}.safetensors") as part:
        part.write_bytes(content)
    return name


@contextmanager
def without_folders(path: Path) -> Iterator[None]:
    """What is wrong with a file is told as InputError by its name, which is all that its user knows of."""
    try:
        yield
    except T2IError as error:
        raise InputError(str(error).replace(str(path), path.name)) from error


def uploaded(desk: Desk, given: Any, suffixes: Sequence[str], most: int | None = None) -> Path:
    """The file of an upload of at most so many MiB: a path that Gradio hands on, or what a client sends for one.

    Raises InputError.
    """
    name = given.get("path") if isinstance(given, Mapping) else given
    if not isinstance(name, str):
        raise InputError("no file was uploaded")
    path = Path(name).resolve()
    if not (path.is_relative_to(desk.files) and path.is_file()):
        raise InputError(f"{Path(name).name[:100]!r} was not uploaded here")
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path.name[:100]!r} does not end in {' or '.join(suffixes)}")
    most = most or desk.options.limits.upload_mib
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
