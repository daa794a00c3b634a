"""The text of AUTOMATIC1111, which Forge, SD.Next, Fooocus, Civitai and many nodes of ComfyUI write as well.

A prompt, perhaps a line that begins with "Negative prompt:", then fields "Name: value" with commas between.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from t2i_tools.images.settings.reading import FileSettings, Reading, number, shown

NEGATIVE = "Negative prompt:"
TEMPLATES = ("Template: ", "Negative template: ")
LEAST = 3  # fields; fewer are words of a prompt
CANDIDATES = 50  # lines that may begin the settings, from the last back; more is nobody's image
BLANKS = re.compile(r"[ \t]*")
SEGMENT = re.compile(r"[^,\n]*")
NAME = re.compile(r"(\w[\w /-]{1,80}):")
STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"(?=\s*(?:,|\n|$))', re.DOTALL)
SIZE = re.compile(r"(\d{1,9})x(\d{1,9})")
LINE = re.compile(r"([A-Z][\w ]{0,40}): (.*)")
READ = frozenset(("Steps", "Sampler", "Schedule type", "CFG scale", "Distilled CFG Scale", "Seed", "Size", "Model"))
# Fields that change the image and have no counterpart here.
ACTING = frozenset(
    (
        *("Clip skip", "ENSD", "Eta", "Eta DDIM", "Denoising strength", "Mask blur", "Variation seed", "RNG"),
        *("Variation seed strength", "Hires upscale", "Hires steps", "Hires upscaler", "Hires resize", "Hires prompt"),
        *(
            "Refiner",
            "Refiner switch at",
            "Hypernet",
            "Lora hashes",
            "TI hashes",
            "ADetailer model",
            "Token merging ratio",
        ),
        *("Guidance", "Skip layers", "Custom Sigmas"),  # of stable-diffusion.cpp
        *("CFG rescale", "Tiling", "Styles", "ControlNet 0", "ControlNet", "Schedule max sigma", "Schedule min sigma"),
        *("Schedule rho", "Beta schedule alpha", "Beta schedule beta", "SGM noise multiplier", "VAE", "Sharpness"),
        *(
            "ADM Guidance",
            "FreeU",
            "Adaptive CFG",
            "Civitai resources",
            "Lora weights",
            "Shift",
            "Discard penultimate sigma",
        ),
    )
)
_decoder = json.JSONDecoder()


def read_parameters(text: str) -> FileSettings | None:
    """The settings in a text of AUTOMATIC1111's form; None for one that has no line of settings."""
    words, fields, behind = split_parameters(text)
    if not fields:
        return None
    reading = Reading(_tool(fields))
    if reading.tool == "SD.Next":
        words = _without_templates(reading, words)
    prompt, negative = _prompts(words)
    reading.take_text("prompt", prompt)
    reading.take_text("negative", negative)
    reading.take_steps(fields.get("Steps"))
    reading.take_seed(fields.get("Seed"))
    _take_guidance(reading, fields)
    _take_size(reading, fields)
    _take_sampler(reading, fields)
    reading.take_text("model", fields.get("Model"))
    reading.keep(fields, READ)
    _take_behind(reading, behind)
    if reading.tool == "Fooocus" and "Raw prompt" in fields:
        reading.note("the prompts are those that Fooocus has expanded; what was typed is in the field 'Raw prompt'")
    return reading.result(ACTING)


def read_prompts(text: str) -> FileSettings | None:
    """A text of prompts alone; None for an empty one."""
    words, _, _ = split_parameters(text)
    reading = Reading("AUTOMATIC1111")
    prompt, negative = _prompts(words)
    reading.take_text("prompt", prompt)
    reading.take_text("negative", negative)
    reading.note(f"no line of settings: fewer than {LEAST} fields are words of a prompt")
    return reading.result() if prompt or negative else None


def split_parameters(text: str) -> tuple[list[str], dict[str, Any], list[str]]:
    """(lines of the prompts, fields, lines behind the fields); without fields all lines are of the prompts.

    The fields begin at the last line that starts with "Steps: <number>", or else at the last one that holds three
    fields or more; a quoted value goes on over its line's end. Linear in the length of the text.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    begin = _begin(text, starts)
    if begin is None:
        return text.split("\n"), {}, []
    fields: dict[str, Any] = {}
    end = begin
    for name, value, field_end in _fields(text, begin):
        fields.setdefault(name, value)
        end = field_end
    words = text[:begin].rstrip("\n")
    behind = text[end:].strip()
    return words.split("\n") if words else [], fields, behind.split("\n") if behind else []


def _begin(text: str, starts: list[int]) -> int | None:
    """Where the fields begin."""
    stepped = [start for start in starts if re.match(r"[ \t]{0,20}Steps:[ \t]{0,20}\d", text[start : start + 60])]
    for start in reversed(stepped[-CANDIDATES:]):
        if len(list(islice(_fields(text, start), LEAST))) == LEAST:
            return start
    for start in reversed(starts[-CANDIDATES:]):
        if len(list(islice(_fields(text, start), LEAST))) == LEAST:
            return start
    return None


def _fields(text: str, at: int) -> Iterator[tuple[str, Any, int]]:
    """(name, value, where it ends) of every field from a place to the end of its line."""
    while at < len(text):
        at = _past_blanks(text, at)
        end = _end(SEGMENT, text, at)
        match = NAME.search(text, at, min(end, at + 200))
        if match is None:
            if end >= len(text) or text[end] == "\n":
                return
            at = end + 1
            continue
        value, end = _value(text, match.end())
        yield match[1].strip(), value, end
        at = end + 1
        if end >= len(text) or text[end] == "\n":
            return


def _value(text: str, at: int) -> tuple[Any, int]:
    """(value, where the comma or line's end behind it is): a JSON string, an array or object, or plain text."""
    at = _past_blanks(text, at)
    first = text[at : at + 1]
    if first == '"' and (match := STRING.match(text, at)):
        try:
            return json.loads(match[0], strict=False), _past_blanks(text, match.end())
        except ValueError:
            return match[0], _past_blanks(text, match.end())
    if first and first in "[{":
        try:
            value, end = _decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            value, end = None, at
        end = _past_blanks(text, end)
        if value is not None and text[end : end + 1] in ("", ",", "\n"):
            return value, end
    end = _end(SEGMENT, text, at)
    return text[at:end].rstrip(), end


def _past_blanks(text: str, at: int) -> int:
    return _end(BLANKS, text, at)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Where the match of a pattern that is found at any place ends."""
    match = pattern.match(text, at)
    return match.end() if match else at


def _prompts(lines: list[str]) -> tuple[str, str]:
    """(prompt, negative prompt): the second begins at the first line that says so."""
    kinds: tuple[list[str], list[str]] = ([], [])
    negative = False
    for line in (line.strip() for line in lines):
        if line.startswith(NEGATIVE):
            negative, line = True, line[len(NEGATIVE) :].strip()
        if line or kinds[negative]:
            kinds[negative].append(line)
    return "\n".join(kinds[0]).strip(), "\n".join(kinds[1]).strip()


def _take_guidance(reading: Reading, fields: dict[str, Any]) -> None:
    """Of Flux the distilled guidance is what diffusers calls guidance_scale."""
    distilled, scale = fields.get("Distilled CFG Scale"), fields.get("CFG scale")
    if distilled is None:
        reading.take_guidance(scale)
        return
    reading.take_guidance(distilled)
    if number(scale) not in (None, 1.0):
        reading.note(f"not used here: CFG scale {number(scale):g} beside the distilled one")


def _take_size(reading: Reading, fields: dict[str, Any]) -> None:
    """Civitai's copied text has width and height where all others have Size."""
    size = fields.get("Size", f"{fields['width']}x{fields['height']}" if {"width", "height"} <= fields.keys() else None)
    if isinstance(size, str) and (match := SIZE.fullmatch(size)):
        reading.take_size(match[1], match[2])
    elif size:
        reading.take_size(size, None)


def _take_sampler(reading: Reading, fields: dict[str, Any]) -> None:
    schedule = fields.get("Schedule type") or (fields.get("Scheduler") if reading.tool == "Fooocus" else None)
    reading.take_sampler(fields.get("Sampler") or None, schedule)
    if reading.tool == "SD.Next" and "Sampler" not in fields:
        reading.note(f"the sampler is the model's own: {shown(fields.get('Scheduler'))}")


def _without_templates(reading: Reading, lines: list[str]) -> list[str]:
    """The lines of the prompts; SD.Next writes below them what they were made from."""
    first = next((place for place, line in enumerate(lines) if line.startswith(TEMPLATES) and place), len(lines))
    _take_behind(reading, lines[first:])
    return lines[:first]


def _take_behind(reading: Reading, lines: list[str]) -> None:
    """Lines behind the fields, as extensions write them: "Template: ...", which may go on below."""
    name, read = None, {}
    for line in lines:
        if match := LINE.match(line):
            name = match[1]
            read[name] = [match[2]]
        elif name:
            read[name].append(line)
        else:
            reading.note(f"a line after the settings is not understood: {line[:60]!r}")
    for name, texts in read.items():
        reading.other.setdefault(name, "\n".join(texts))


def _tool(fields: dict[str, Any]) -> str:
    version = str(fields.get("Version", ""))[:100]
    if fields.get("App") == "SD.Next":
        return "SD.Next"
    if version.startswith("Fooocus"):
        return "Fooocus"
    if "Civitai resources" in fields or "Civitai metadata" in fields:
        return "Civitai"
    if re.match(r"f\d|neo|classic", version):
        return "Forge"
    return version if version in ("ComfyUI", "stable-diffusion.cpp") else "AUTOMATIC1111"
