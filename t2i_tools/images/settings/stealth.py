"""Settings in the lowest bits of the pixels, as NovelAI, Forge and SwarmUI hide them ("stealth pnginfo").

Column by column: a signature of 15 letters, the length in bits (32 bits, high byte first), then the text as UTF-8 or
gzip. One bit per pixel of alpha, or three per pixel of red, green and blue.
"""

import json
import zlib

import numpy as np
from PIL import Image

LONGEST = 2**21  # characters of the text
SIGNATURES = {  # whether it is packed
    "A": {b"stealth_pnginfo": False, b"stealth_pngcomp": True},
    "RGB": {b"stealth_rgbinfo": False, b"stealth_rgbcomp": True},
}
HEAD = 15 + 4  # bytes


def hidden_texts(image: Image.Image) -> dict[str, str]:
    """Name -> text, of NovelAI all its texts; empty where nothing is hidden, or what is hidden is damaged."""
    text = hidden_text(image)
    if text is None:
        return {}
    try:
        texts = json.loads(text)
    except (ValueError, RecursionError):
        texts = None
    if isinstance(texts, dict) and isinstance(texts.get("Comment"), str):
        return {name: value for name, value in texts.items() if isinstance(value, str)}
    return {"parameters": text}


def hidden_text(image: Image.Image) -> str | None:
    """The text that is hidden in an image, if one is."""
    if image.mode not in ("RGB", "RGBA"):
        return None
    for bands in ("A", "RGB") if image.mode == "RGBA" else ("RGB",):
        packed = SIGNATURES[bands].get(_bytes(image, bands, HEAD)[:15])
        if packed is not None:
            length = int.from_bytes(_bytes(image, bands, HEAD)[15:], "big") // 8
            return _text(_bytes(image, bands, HEAD + min(length, LONGEST))[HEAD:], packed)
    return None


def _bytes(image: Image.Image, bands: str, count: int) -> bytes:
    """So many bytes of the lowest bits, from the columns that hold them."""
    columns = min(image.width, 8 * count // (len(bands) * image.height) + 1)
    pixels = np.asarray(image.crop((0, 0, columns, image.height)))
    chosen = pixels[..., 3:] if bands == "A" else pixels[..., :3]
    bits = chosen.swapaxes(0, 1).reshape(-1)[: 8 * count] & 1
    return np.packbits(bits).tobytes()


def _text(data: bytes, packed: bool) -> str | None:
    try:
        if packed:
            data = zlib.decompressobj(wbits=31).decompress(data, LONGEST + 1)
        return data.decode("utf-8")
    except (zlib.error, UnicodeDecodeError):
        return None
