"""Where tools put their texts: PNG text before or behind the pixels, EXIF, and the lowest bits of alpha."""

import gzip
import struct
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

MAKE, MODEL, SOFTWARE, USER_COMMENT, EXIF_IFD = 0x010F, 0x0110, 0x0131, 0x9286, 0x8769


def picture(mode: str = "RGB") -> Image.Image:
    """64 x 64: large enough for the settings that are hidden in alpha, and not the size of any case."""
    return Image.new(mode, (64, 64), (90, 140, 30, 255)[: len(mode)])


def png(path: Path, texts: dict[str, str]) -> None:
    """Text before the pixels: tEXt for Latin-1, else iTXt, as Pillow's `add_text` chooses."""
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    picture().save(path, "PNG", pnginfo=info)


def png_behind(path: Path, texts: dict[str, str]) -> None:
    """Text behind the pixels, as metadata editors leave it."""
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add(b"iTXt", key.encode() + b"\0\0\0\0\0" + text.encode(), after_idat=True)
    picture().save(path, "PNG", pnginfo=info)


def png_zipped(path: Path, texts: dict[str, str]) -> None:
    """Compressed text: zTXt or iTXt."""
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text, zip=True)
    picture().save(path, "PNG", pnginfo=info)


def apng(path: Path, texts: dict[str, str]) -> None:
    """ComfyUI's own chunk `comf`, behind the pixels of an animated PNG."""
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add(b"comf", key.encode("latin-1") + b"\0" + text.encode("latin-1"), after_idat=True)
    other = Image.new("RGB", (64, 64), (1, 2, 3))
    picture().save(path, "PNG", pnginfo=info, save_all=True, append_images=[other], duration=100)


def _with_comment(path: Path, comment: bytes, kind: str) -> None:
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = comment
    picture().save(path, kind, exif=exif.tobytes())  # Pillow writes no Exif into a PNG that has sub-tags alone


def exif_big(path: Path, text: str, kind: str) -> None:
    """As piexif's helper writes it: UNICODE and UTF-16, high byte first."""
    _with_comment(path, b"UNICODE\0" + text.encode("utf-16-be"), kind)


def exif_little(path: Path, text: str, kind: str) -> None:
    """As ImageSharp writes it: UNICODE and UTF-16, low byte first."""
    _with_comment(path, b"UNICODE\0" + text.encode("utf-16-le"), kind)


def exif_ascii(path: Path, text: str, kind: str) -> None:
    """With the other header of the EXIF standard."""
    _with_comment(path, b"ASCII\0\0\0" + text.encode("ascii"), kind)


def exif_first(path: Path, tags: dict[int, str], kind: str) -> None:
    """Plain strings among the first tags, as Pillow's `Exif` takes them: no header, and not where EXIF wants it."""
    exif = Image.Exif()
    for tag, text in tags.items():
        exif[tag] = text
    picture().save(path, kind, exif=exif)


def stealth_alpha(path: Path, text: str, texts: dict[str, str] | None = None) -> None:
    """`stealth_pngcomp`, the length in bits and gzip, one bit per pixel of alpha, column by column."""
    packed = gzip.compress(text.encode(), mtime=0)
    lowest_bits(path, b"stealth_pngcomp" + struct.pack(">I", 8 * len(packed)) + packed, texts)


def lowest_bits(path: Path, data: bytes, texts: dict[str, str] | None = None) -> None:
    """Bytes in the lowest bits of alpha."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    pixels = np.array(picture("RGBA").resize((64, len(bits) // 64 + 64)))
    alpha = np.full(pixels.shape[:2], 255, np.uint8).T.reshape(-1)
    alpha[: len(bits)] = 254 | bits
    pixels[..., 3] = alpha.reshape(pixels.shape[1], pixels.shape[0]).T
    info = PngImagePlugin.PngInfo()
    for key, value in (texts or {}).items():
        info.add_text(key, value)
    Image.fromarray(pixels, "RGBA").save(path, "PNG", pnginfo=info)


def xmp_png(path: Path, xmp: str) -> None:
    """XMP in PNG's text, as macOS writes it."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp)
    picture().save(path, "PNG", pnginfo=info)


def bare(path: Path) -> None:
    buffer = BytesIO()
    picture().save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())
