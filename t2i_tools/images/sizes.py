"""Image sizes: (height, width) in pixels inside the package, "WxH" in text."""

import re
from collections.abc import Sequence
from numbers import Integral
from typing import Literal, get_args

from t2i_tools.errors import InputError, shortened

Size = tuple[int, int]
Fit = Literal["crop", "snap"]
FITS: tuple[Fit, ...] = get_args(Fit)
MAX_SIDE = 8192


def parse_size(text: str) -> Size:
    """Read "WIDTHxHEIGHT", for instance "640x480".

    Returns (height, width) in pixels. Raises InputError on anything else, and on sides outside 1 to 8192.
    """
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*[xX×]\s*([0-9]{1,9})\s*", text)
    if match is None:
        raise InputError(f"size {shortened(repr(text))} is not WIDTHxHEIGHT in pixels, for instance 640x480")
    width, height = map(int, match.groups())
    if not all(1 <= side <= MAX_SIDE for side in (height, width)):
        raise InputError(f"size {shortened(repr(text))} is out of range: each side must have 1 to {MAX_SIDE} pixels")
    return height, width


def parse_sizes(text: str) -> list[Size]:
    """Read sizes with commas between, "640x480,1024x768". Raises InputError."""
    return [parse_size(one) for one in text.split(",")]


def check_size(size: Size) -> None:
    """Raise InputError unless a size is (height, width), each of 1 to 8192 pixels."""
    if not isinstance(size, Sequence) or len(size) != 2 or not all(isinstance(side, Integral) for side in size):
        raise InputError(f"size {shortened(repr(size))} is not (height, width) in pixels, for instance (480, 640)")
    if not all(1 <= side <= MAX_SIDE for side in size):
        raise InputError(f"size {shortened(repr(size))} is out of range: each side must have 1 to {MAX_SIDE} pixels")


def format_size(size: Size) -> str:
    """(height, width) as "WxH"."""
    return f"{size[1]}x{size[0]}"


def possible_size(size: Size, multiple: int, fit: Fit) -> Size:
    """The size to generate at, both sides in whole multiples of `multiple` pixels.

    "crop" is the next size that covers the one asked for; "snap" the nearest, halves up, never below one multiple.
    """
    height, width = size
    if fit == "crop":
        return -(-height // multiple) * multiple, -(-width // multiple) * multiple
    return _nearest(height, multiple), _nearest(width, multiple)


def centre_box(outer: Size, inner: Size) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) in pixels that cuts `inner` out of the middle of `outer`."""
    top, left = ((o - i) // 2 for o, i in zip(outer, inner, strict=True))
    return left, top, left + inner[1], top + inner[0]


def _nearest(side: int, multiple: int) -> int:
    return max(1, (2 * side + multiple) // (2 * multiple)) * multiple
