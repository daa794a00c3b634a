"""Seeded harm to the bytes of a file: bit flips, cuts, swaps, splices, repeats, and odd values in the right places.

Odd values leave a file's outer form whole, so that they reach the checks behind it: of JSON one value is replaced, of
safetensors one of the header, of PNG one text, with its checksum.
"""

import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

ODD = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 1.5, -0.0, 1e308, float("nan"), float("inf")),
    *(
        "",
        " ",
        "\0",
        "x",
        "x" * 5000,
        "../../etc/passwd",
        "1",
        "nan",
        "\ud800",
        "a\nb",
        "{}",
        "[",
        "<script>",
        "%s%n",
        "٣",
    ),
    *([], [[]], [None], [1] * 50, {}, {"": {}}, {"a": [1]}, "🦊"),
)
DEEP = b"[" * 20_000

Harm = Callable[[bytes, bytes, random.Random], bytes]


def mutate(content: bytes, other: bytes, form: str, chance: random.Random) -> bytes:
    """One to three harms, drawn by `chance`. other: another file, to splice with. form: of FORMS, or "" for bytes."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        harms = [*BYTES, *[FORMS[form]] * 4] if form in FORMS else BYTES
        content = chance.choice(harms)(content, other, chance)
    return content


def flip(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """One to eight bits."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 8) if data else 0):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def cut(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Without what lies behind a place."""
    return content[: chance.randint(0, len(content))]


def swap(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Two neighboring pieces change places."""
    a, b, c = sorted(chance.randint(0, len(content)) for _ in range(3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def splice(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """The beginning of one and the end of another."""
    return content[: chance.randint(0, len(content))] + other[chance.randint(0, len(other)) :]


def repeat(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """A piece many times over."""
    start = chance.randint(0, len(content))
    piece = content[start : start + chance.randint(1, 40)]
    return content[:start] + piece * chance.choice((2, 10, 500)) + content[start:]


def insert(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Bytes that mean something to one parser or another."""
    place = chance.randint(0, len(content))
    return (
        content[:place]
        + chance.choice((b"\0", b"\xff\xfe", b'"', b"\n", b"{", b"]", b"9" * 5000, DEEP))
        + content[place:]
    )


def odd_json(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """An odd value in JSON, one object or one per line; what is no JSON loses a bit."""
    lines = content.split(b"\n")
    for lines_ in ([content], lines):
        index = chance.randrange(len(lines_))
        try:
            value = json.loads(lines_[index])
        except (ValueError, RecursionError):
            continue
        lines_ = list(lines_)
        lines_[index] = json.dumps(odd(value, chance)).encode()
        return b"\n".join(lines_)
    return flip(content, other, chance)


def odd_header(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """An odd value in the header of a safetensors file, or in the JSON that its metadata holds."""
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        about = header.get("__metadata__")
    except (struct.error, ValueError, AttributeError, RecursionError, OverflowError):
        return flip(content, other, chance)
    texts = [name for name, text in (about or {}).items() if isinstance(text, str)] if isinstance(about, dict) else []
    if texts and chance.random() < 0.7:
        name = chance.choice(texts)
        about[name] = odd_json(about[name].encode("utf-8", "replace"), b"", chance).decode("utf-8", "replace")
    else:
        header = odd(header, chance)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def odd_png(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Harm to one chunk of a PNG, with a checksum that is right again."""
    chunks = list(png_chunks(content))
    if not chunks:
        return flip(content, other, chance)
    texts = [i for i, (kind, _) in enumerate(chunks) if kind in (b"tEXt", b"iTXt", b"zTXt", b"eXIf")]
    index = chance.choice(texts) if texts and chance.random() < 0.8 else chance.randrange(len(chunks))
    kind, data = chunks[index]
    name, mark, text = data.partition(b"\0")
    if kind == b"tEXt" and chance.random() < 0.6 and text[:1] in (b"{", b"["):
        chunks[index] = kind, name + mark + odd_json(text, other, chance)
    else:
        chunks[index] = kind, chance.choice(BYTES)(data, other, chance)
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return content[:8] + body


def png_chunks(content: bytes):
    """(kind, data) of the chunks that are whole."""
    place = 8
    while place + 12 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        if place + 12 + length > len(content):
            return
        yield content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        place += 12 + length


def odd(value: Any, chance: random.Random) -> Any:
    """The value with one part of it replaced, left out, doubled or put under another name."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        name = chance.choice(list(value))
        rest = {key: one for key, one in value.items() if key != name}
        what = chance.random()
        if what < 0.1:
            return rest
        if what < 0.15:
            return rest | {chance.choice(("", "surprise", name + " ", "__class__")): value[name]}
        return value | {name: odd(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        index = chance.randrange(len(value))
        what = chance.random()
        if what < 0.1:
            return value[:index] + value[index + 1 :]
        if what < 0.15:
            return value + [value[index]]
        return value[:index] + [odd(value[index], chance)] + value[index + 1 :]
    return chance.choice(ODD)


BYTES: list[Harm] = [flip, cut, swap, splice, repeat, insert]
FORMS: dict[str, Harm] = {"json": odd_json, "safetensors": odd_header, "png": odd_png}
