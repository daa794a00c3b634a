"""Files that come in: only what was uploaded, of the right type and size, and never a path that somebody names."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from t2i_tools.errors import InputError, T2IError
from t2i_tools.files import replacing
from t2i_tools.images.open_image import open_image
from t2i_tools.images.settings import read_file
from t2i_tools.images.settings.sources import OURS

from .jobs.generate import start_path
from .service import Service
from .upload_quota import check_room, make_room

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
LARGER = 4  # times the pixels that are made here
TOKEN_MIB = 1  # a vector for each text encoder takes some kilobytes


def file_settings(service: Service, upload: Any) -> tuple[dict[str, Any], list[str]]:
    """The settings in an uploaded image, and one line per thing in it that does not act. Raises InputError."""
    path = uploaded(service, upload, IMAGE_SUFFIXES)
    with without_folders(path):
        open_image(path, LARGER * service.options.limits.pixels)
        read = read_file(path)
    settings, notes = dict(read.settings), list(read.notes)
    if read.tool != OURS:
        known = service.registry.loras()
        absent = [lora for lora in settings.get("lora", ()) if Path(lora["file"]).stem not in known]
        notes += [f"LoRA {lora['file'][:60]} is not here" for lora in absent]
        settings["lora"] = [lora for lora in settings.get("lora", ()) if lora not in absent]
        if settings.get("model") not in (None, *service.registry.models()):
            notes.append(f"model {settings.pop('model')[:60]} is not here: the one that is chosen stays")
    return settings, notes


def keep_start(service: Service, upload: Any) -> str:
    """Keep an uploaded image to start from; the name by which the values of a job and a file know it."""
    return keep_image(service, uploaded(service, upload, IMAGE_SUFFIXES))


def keep_image(service: Service, path: Path) -> str:
    """The same for an image that is here. Raises InputError."""
    with without_folders(path):
        image = open_image(path, LARGER * service.options.limits.pixels)
    size = f"{image.width}x{image.height}".encode()
    name = hashlib.sha256(size + image.tobytes()).hexdigest()[:32]
    kept = start_path(service.output, name)
    if kept.exists():
        kept.touch()  # it is in use again: older ones go first
    else:
        with replacing(kept) as part:
            image.save(part, format="PNG")
        make_room(service)
    return name


def keep_token(service: Service, owner: str, upload: Any) -> str:
    """Keep an uploaded count token for its owner; its name there. Raises InputError."""
    from t2i_tools.counting import CountToken

    path = uploaded(service, upload, [".safetensors"], TOKEN_MIB)
    with without_folders(path):
        CountToken.load(path)
    content, name = path.read_bytes(), re.sub(r"[^\w.-]+", "-", path.stem)[:60].strip("-.") or "token"
    registry = service.registry.of(owner)
    there = registry.tokens().get(name)
    if there and there.read_bytes() != content:
        name += f"-{hashlib.sha256(content).hexdigest()[:8]}"
    check_room(service, registry.owner_tokens.parent, len(content))
    with replacing(registry.owner_tokens / f"{name}.safetensors") as part:
        part.write_bytes(content)
    return name


@contextmanager
def without_folders(path: Path) -> Iterator[None]:
    """Turn what is wrong with a file into an InputError that names it as its user does."""
    try:
        yield
    except T2IError as error:
        raise InputError(str(error).replace(str(path), path.name)) from error


def uploaded(service: Service, upload: Any, suffixes: Sequence[str], most: int | None = None) -> Path:
    """The file of an upload of at most so many MiB: a path that Gradio hands on, or what a client sends for one.

    Raises InputError.
    """
    name = upload.get("path") if isinstance(upload, Mapping) else upload
    if not isinstance(name, str):
        raise InputError("no file was uploaded")
    try:
        path = Path(name).resolve()
        is_ours = path.is_relative_to(service.files) and path.is_file()
    except (ValueError, OSError):  # null bytes and half surrogate pairs are in no path; others are too long for one
        is_ours = False
    if not is_ours:
        raise InputError(f"{Path(name).name[:100]!r} was not uploaded here")
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path.name[:100]!r} does not end in {' or '.join(suffixes)}")
    most = most or service.options.limits.upload_mib
    if path.stat().st_size > most * 2**20:
        raise InputError(f"{path.name[:100]!r} is larger than the {most} MiB that this server takes")
    return path
