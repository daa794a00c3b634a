"""The one opener of image files: whatever their pixels are stored as, RGB as a viewer shows them, or one clear line."""

import logging
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from t2i_tools.errors import InputError, first_line

# PostScript is left out: Pillow would start Ghostscript on it.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA", "ICO")
FULL_16_BIT = ("PNG", "PPM")  # their mode "I" is a gray of 16 bits; a TIFF's may be anything
BACKGROUND = "white"  # behind what is transparent
logger = logging.getLogger("t2i_tools.images")


def open_image(path: str | Path, most_pixels: int | None = None) -> Image.Image:
    """Read an image file as RGB of 8 bits, turned as its EXIF says; of several frames the first, which is logged.

    Args:
        path: A file of one of FORMATS.
        most_pixels: Refuse an image of more pixels before they are decoded; None: Pillow's own limit alone.

    Returns:
        The image in memory; the file is closed.

    Raises:
        InputError: The file is missing, no image, broken, too large, or its pixels cannot be shown as they stand.
    """
    try:
        with Image.open(path, formats=_known_formats()) as image:
            if most_pixels is not None and image.width * image.height > most_pixels:
                raise InputError(
                    f"it has {image.width}x{image.height} pixels, more than the {most_pixels} allowed: use a smaller "
                    "image"
                )
            frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1  # a camera's MPO has previews
            turned = ImageOps.exif_transpose(image)
            turned.format = image.format  # says what a 32-bit gray means
            rgb = to_rgb(turned)
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image that can be read here") from error
    except InputError as error:
        raise InputError(f"cannot read {path}: {error}") from error
    except Exception as error:  # each of Pillow's decoders has its own for what is damaged
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or first_line(error)}") from error
    if frames > 1:
        logger.warning("%s has %d frames: only the first is read", path, frames)
    return rgb


def to_rgb(image: Image.Image) -> Image.Image:
    """Give an image the form that detectors and pipelines take, whatever its mode.

    Gray of 16 bits is divided by 257, gray of floats multiplied by 255; what is transparent stands before white.

    Args:
        image: Of any mode of Pillow's.

    Returns:
        The image itself where it is RGB, else one of the same size in RGB.

    Raises:
        InputError: Floats beyond 0 to 1, integers of unknown range, or a mode that Pillow cannot convert.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in FULL_16_BIT):
        return _gray(np.asarray(image).astype(np.float64) / 257)
    if image.mode == "I":
        return _integers(image)
    if image.mode == "F":
        return _floats(image)
    try:
        if image.has_transparency_data:
            seen = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", seen.size, BACKGROUND), seen).convert("RGB")
        return image.convert("RGB")
    except ValueError as error:
        raise InputError(f"pixels of mode {image.mode} cannot be read as colors: save it as 8-bit RGB") from error


def _integers(image: Image.Image) -> Image.Image:
    """Gray of 32 bits: as 8 bits where it stays within them, as 16 where a format says so, else nobody knows."""
    values = np.asarray(image)
    if values.min() >= 0 and values.max() <= 255:
        return _gray(values)
    raise InputError(
        f"32-bit gray with values from {values.min()} to {values.max()}: which of them is white is not known; save "
        "it as 8 or 16 bits"
    )


def _floats(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise InputError(
            f"float gray with values from {values.min():g} to {values.max():g}: only 0 to 1 can be read; save it as "
            "8 or 16 bits"
        )
    return _gray(values * 255)


def _gray(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(values).astype(np.uint8), "L").convert("RGB")


def _known_formats() -> list[str]:
    """Those of FORMATS that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]
