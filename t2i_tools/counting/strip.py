"""A search in one image."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

SIDE, MARGIN, LINE, FRAMES = 128, 6, 22, 12
INK, GOOD, PAPER = "black", "#1a7f37", "white"


def thumbnail(image: Image.Image) -> Image.Image:
    """The image with its longer side at most SIDE pixels."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    return small


def draw_strip(frames: Sequence[Image.Image], labels: Sequence[str], best: int) -> Image.Image:
    """At most FRAMES images in a row, evenly chosen, the first, the best and the last among them, labels below."""
    chosen = choose_frames(len(frames), best)
    width, height = frames[0].size
    strip = Image.new("RGB", (len(chosen) * (width + MARGIN) + MARGIN, height + 2 * MARGIN + LINE), PAPER)
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(size=LINE - 8)
    for place, index in enumerate(chosen):
        left = MARGIN + place * (width + MARGIN)
        strip.paste(frames[index], (left, MARGIN))
        colour = GOOD if index == best else INK
        if index == best:
            pen.rectangle((left - 3, MARGIN - 3, left + width + 2, MARGIN + height + 2), outline=GOOD, width=3)
        pen.text((left, height + MARGIN + 4), f"{index}: {labels[index]}", fill=colour, font=font)
    return strip


def choose_frames(number: int, best: int) -> list[int]:
    """At most FRAMES of the indices below `number`, in order."""
    if number <= FRAMES:
        return list(range(number))
    even = {round(i * (number - 1) / (FRAMES - 2)) for i in range(FRAMES - 1)}
    return sorted(even | {best})
