"""Files that come in: only what was uploaded, of the right type and size, and never a path that somebody names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from t2i_tools.errors import InputError, first_line
from t2i_tools.ui.desk import Desk


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


def check_picture(path: Path, most_pixels: int) -> None:
    """Raise InputError unless the file is a whole image of at most so many pixels."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > most_pixels:
                raise InputError(f"{path.name} has {image.width}x{image.height} pixels: that is too large here")
            image.load()
    except UnidentifiedImageError as error:
        raise InputError(f"{path.name} is not an image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read {path.name}: {first_line(error)}") from error
