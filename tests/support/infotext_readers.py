"""How AUTOMATIC1111 and Civitai read the text of settings: oracles for what `save_image` writes.

Written from what modules/infotext_utils.py (AUTOMATIC1111, 036500223de0) and automatic.metadata.ts (Civitai,
ebed66163038) do, with other means: scanners here, where they have patterns.
"""

import json
import string

NAME_LETTERS = " -/_"


def read_as_a1111(text: str) -> dict[str, str]:
    """Prompt, "Negative prompt" and the fields of the last line, if it has three or more."""
    *lines, last = text.strip().split("\n")
    fields = _a1111_fields(last)
    if len(fields) < 3:
        lines.append(last)
        fields = []
    prompts: dict[bool, list[str]] = {False: [], True: []}
    negative = False
    for line in map(str.strip, lines):
        if line.startswith("Negative prompt:"):
            negative = True
            line = line.removeprefix("Negative prompt:").strip()
        if line or prompts[negative]:
            prompts[negative].append(line)
    read = {"Prompt": "\n".join(prompts[False]), "Negative prompt": "\n".join(prompts[True])}
    return read | {name: _unquoted(value) for name, value in fields if value}


def _a1111_fields(line: str) -> list[tuple[str, str]]:
    """(name, value): a name of two letters or more before a colon, a value up to the comma or in quotes."""
    fields, at = [], 0
    while at < len(line):
        colon = _end_of_name(line, at)
        if colon is None:
            at += 1
            continue
        start = colon + 1
        while line[start : start + 1].isspace():
            start += 1
        end = _end_of_quoted(line, start)
        if end is None:
            end = line.find(",", start)
            end = len(line) if end < 0 else end
        fields.append((line[at:colon], line[start:end]))
        at = end + 1
    return fields


def _end_of_name(line: str, at: int) -> int | None:
    """Where the colon is behind a name that begins here."""
    if not (line[at].isalnum() or line[at] == "_"):
        return None
    end = at + 1
    while end < len(line) and (line[end].isalnum() or line[end] in NAME_LETTERS):
        end += 1
    return end if end > at + 1 and line[end : end + 1] == ":" else None


def _end_of_quoted(line: str, at: int) -> int | None:
    """Where a text in quotes ends that a comma or the line's end follows."""
    if line[at : at + 1] != '"':
        return None
    end = at + 1
    while end < len(line) and line[end] != '"':
        end += 2 if line[end] == "\\" else 1
    if end >= len(line) or end == at + 1 or line[end + 1 : end + 2] not in ("", ","):
        return None
    return end + 1


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def read_as_civitai(text: str) -> dict[str, str]:
    """The same names; {} for a text without "Steps: ", where it reads nothing."""
    if "Steps: " not in text:
        return {}
    if text.startswith("Parameters"):
        rest = text.removeprefix("Parameters").lstrip()
        text = rest[1:].lstrip() if rest.startswith(":") else text
    lines = [line for line in text.split("\n") if line.strip()]
    for key in ("Template: ", "Negative Template: "):
        first = next((place for place, line in enumerate(lines) if line.startswith(key)), None)
        if first is not None:
            del lines[first]
            while first < len(lines) and not _has_key(lines[first]):
                del lines[first]
    details = next((line for line in lines if line.startswith("Steps: ")), "")
    if details:
        lines.remove(details)
    prompt, *negative = (part.strip() for part in "\n".join(lines).split("Negative prompt:"))
    return {"Prompt": prompt, "Negative prompt": " ".join(negative).strip()} | _civitai_fields(details)


def _has_key(line: str) -> bool:
    """Whether some letter or blank stands before ": "."""
    return any(
        line[at - 1] in string.ascii_letters + string.digits + "_ "
        for at in range(1, len(line))
        if line[at:].startswith(": ")
    )


def _civitai_fields(line: str) -> dict[str, str]:
    fields, name, value, quoted = {}, "", "", False
    for letter in line.rstrip().removesuffix(","):
        if letter == '"':
            if quoted and name:
                fields[name], name = value, ""
            quoted = not quoted
        elif letter == ":" and not quoted:
            name, value = value.strip(), ""
        elif letter == "," and not quoted:
            if name:
                fields[name] = value.strip()
            name, value = "", ""
        else:
            value += letter
    if name:
        fields[name] = value.strip()
    return fields
