"""Which text of a file holds its settings, and which tool's reader takes it."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from t2i_tools.errors import InputError
from t2i_tools.images.settings.a1111 import read_parameters, read_prompts
from t2i_tools.images.settings.comfyui import read_graph
from t2i_tools.images.settings.objects import (
    EASY,
    read_drawthings,
    read_dream,
    read_easydiffusion,
    read_invokeai,
    read_invokeai_2,
    read_novelai,
    read_object,
)
from t2i_tools.images.settings.reading import FileSettings, json_object
from t2i_tools.images.settings.texts import file_texts, xmp_comment

CHUNK = "t2i_tools"  # our own settings, as JSON
OURS = "t2i-tools"
Texts = Mapping[str, str]


def read_file(path: str | Path) -> FileSettings:
    """The settings that an image file carries: our own, or else those of another tool.

    Args:
        path: A PNG, JPEG or WebP file.

    Returns:
        What is understood under our names, what is not under the tool's, and notes on it.

    Raises:
        InputError: The file is no such image, carries no settings, or carries some that are damaged or not known.
    """
    texts = file_texts(path)
    damaged: str | None = None
    for read in (_own, _by_keyword, _by_text):
        try:
            found = read(texts)
        except InputError as error:
            damaged = damaged or str(error)
            continue
        if found:
            return found
    if damaged:
        raise InputError(f"cannot read the settings in {path}: {damaged}")
    raise InputError(f"{path} carries no settings{_left_over(texts)}")


def _own(texts: Texts) -> FileSettings | None:
    """Our JSON, in a PNG text or in EXIF's description."""
    text = texts.get(CHUNK) or _after(texts.get("exif:Description", ""), f"{CHUNK}:")
    if not text:
        return None
    settings = json_object(text)
    if settings is None:
        raise InputError("they are not a JSON object")
    return FileSettings(OURS, settings)


def _by_keyword(texts: Texts) -> FileSettings | None:
    """Tools that the name of a text points to."""
    readers: tuple[tuple[str, Callable[[dict[str, Any]], FileSettings]], ...] = (
        ("invokeai_metadata", read_invokeai),
        ("sd-metadata", read_invokeai_2),
    )
    for name, read in readers:
        if name in texts and (data := json_object(texts[name])) is not None:
            return read(data)
    if EASY.issubset(texts):
        return read_easydiffusion(texts)
    if "Dream" in texts:
        return read_dream(texts["Dream"])
    if texts.get("Software") == "NovelAI" and "Comment" in texts:
        return read_novelai(texts["Comment"])
    if "xmp" in texts and "Draw Things" in texts["xmp"] and (comment := xmp_comment(texts["xmp"])):
        data = json_object(comment)
        return None if data is None else read_drawthings(data)
    return None


def _by_text(texts: Texts) -> FileSettings | None:
    """Tools that only the text itself points to. JSON is never a prompt."""
    for name, text in _candidates(texts):
        read = _read_json(text) if text.lstrip()[:1] in ("{", "[") else None
        if read is None and not _is_json(text):
            read = read_parameters(text) or (read_prompts(text) if name == "parameters" else None)
        if read:
            return read
    return None


def _read_json(text: str) -> FileSettings | None:
    try:
        data = json_object(text)
    except InputError:
        if read := read_parameters(text):  # a prompt may begin with a bracket
            return read
        raise
    return None if data is None else read_object(data) or read_graph(data)


def _is_json(text: str) -> bool:
    """Whether a text that begins as JSON is some. Raises InputError where it is nested too deeply."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text)
    except RecursionError as error:
        raise InputError("its JSON is nested too deeply") from error
    except ValueError:
        return False
    return True


def _candidates(texts: Texts) -> Iterator[tuple[str, str]]:
    for name in ("parameters", "exif:UserComment", "comment", "prompt"):
        if name in texts:
            yield name, re.sub(r"\A(?:prompt|workflow):\s{0,4}(?=\{)", "", texts[name], flags=re.IGNORECASE)
    for name in ("exif:Model", "exif:Make", "exif:Description"):
        if text := _after(texts.get(name, ""), "prompt:"):
            yield name, text


def _after(text: str, start: str) -> str:
    """What stands behind a text's beginning; nothing where it begins otherwise."""
    return text[len(start) :] if text[: len(start)].lower() == start else ""


def _left_over(texts: Texts) -> str:
    """What the file carries instead, for a message."""
    names = ", ".join(repr(name[:40]) for name in list(texts)[:6])
    if any("workflow" in (name, text[:9].lower().rstrip(":")) for name, text in texts.items()):
        return ": ComfyUI's workflow stands in it without the graph that was run, which is not read"
    texted = f", only texts of no known form: {names}" if texts else ""
    return f"{texted}: it was written without them, or saved again by something that leaves them out"
