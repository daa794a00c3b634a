"""All texts that an image file carries: PNG chunks before and behind the pixels, EXIF, XMP, the lowest bits."""

import html
import re
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from t2i_tools.errors import InputError, first_line
from t2i_tools.images.settings.stealth import hidden_texts

FORMATS = ("PNG", "JPEG", "WEBP")  # of a camera's MPO the first image is a JPEG
LONGEST = 2**21  # characters of a text that is read
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
DESCRIPTION, MAKE, MODEL, SOFTWARE = 0x010E, 0x010F, 0x0110, 0x0131
NAMES = {USER_COMMENT: "UserComment", DESCRIPTION: "Description", MAKE: "Make", MODEL: "Model", SOFTWARE: "Software"}
CODES = {b"ASCII\0\0\0": "ascii", b"UNICODE\0": "utf-16", b"JIS\0\0\0\0\0": "shift_jis", b"\0" * 8: "utf-8"}


def file_texts(path: str | Path) -> dict[str, str]:
    """Name -> text: PNG texts under their keywords, EXIF under "exif:UserComment", "exif:Make"..., XMP under "xmp".

    Raises:
        InputError: The file is missing, no PNG, JPEG or WebP, or broken before anything was read.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            broken = _load(image)
            texts = {name: text for name, text in image.info.items() if isinstance(name, str) and isinstance(text, str)}
            texts |= _exif(image) | _xmp(image)
            if broken is None and (image.format == "PNG" or not texts):  # no WebP is decoded without need
                texts = _hidden(image) | texts
    except UnidentifiedImageError as error:
        raise InputError(f"cannot read {path}: not an image (PNG, JPEG or WebP)") from error
    except Exception as error:  # each of Pillow's decoders has its own for what is damaged
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or first_line(error)}") from error
    if broken and not texts:
        raise InputError(f"cannot read {path}: {first_line(broken)}")
    for name, text in texts.items():
        if len(text) > LONGEST:
            raise InputError(
                f"cannot read {path}: its text {name[:60]!r} has {len(text)} characters; at most {LONGEST} are read"
            )
    return texts


def decode_comment(raw: bytes | str) -> str:
    """The text of a UserComment: eight bytes name its code; where UTF-16 has no mark, the order that gives text."""
    if isinstance(raw, str):
        return raw.rstrip("\0")
    code = CODES.get(raw[:8])
    body = raw[8:] if code else raw
    if code != "utf-16":
        return body.decode(code or "utf-8", errors="replace").rstrip("\0")
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return body.decode("utf-16", errors="replace").rstrip("\0")
    even, odd = body[:2000:2].count(0), body[1:2000:2].count(0)
    if even == odd == 0 and len(body) > 3:  # some write UTF-8 behind this name
        try:
            return body.decode("utf-8").rstrip("\0")
        except UnicodeDecodeError:
            pass
    return body.decode("utf-16-be" if even >= odd else "utf-16-le", errors="replace").rstrip("\0")


def _load(image: Image.Image) -> Exception | None:
    """Read on to the file's end, where PNG texts may stand as well; what is wrong with the pixels does not matter."""
    try:
        if image.format == "PNG":
            image.load()
    except Exception as error:
        return error
    return None


def _hidden(image: Image.Image) -> dict[str, str]:
    """What the lowest bits hold; nothing where the pixels cannot be read."""
    try:
        return hidden_texts(image)
    except (OSError, SyntaxError, ValueError, EOFError):
        return {}


def _exif(image: Image.Image) -> dict[str, str]:
    exif = image.getexif()
    tags = {**{tag: exif.get(tag) for tag in NAMES}, **_user_comment(exif.get_ifd(EXIF_IFD))}
    texts = {}
    for tag, name in NAMES.items():
        raw = tags.get(tag)
        if isinstance(raw, bytes | str) and (text := decode_comment(raw)):
            texts[f"exif:{name}"] = text
    return texts


def _user_comment(tags: dict[int, object]) -> dict[int, object]:
    return {tag: value for tag, value in tags.items() if tag == USER_COMMENT}


def _xmp(image: Image.Image) -> dict[str, str]:
    raw = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if isinstance(raw, bytes):
        raw = raw[:LONGEST].decode("utf-8", errors="replace")
    return {"xmp": raw} if isinstance(raw, str) else {}


def xmp_comment(xmp: str) -> str | None:
    """The text of exif:UserComment in XMP."""
    start = xmp.find("exif:UserComment")
    end = xmp.find("exif:UserComment", start + 1)
    if start < 0:
        return None
    inner = xmp[start : end if end > 0 else None]
    opening, closing = inner.find("{"), inner.rfind("}")
    return html.unescape(re.sub(r"&#xA;", "\n", inner[opening : closing + 1])) if 0 <= opening < closing else None
