"""Renders the classes' emoji from Noto Color Emoji (OFL; Debian: fonts-noto-color-emoji) into one sprite sheet."""

import sys

from PIL import Image, ImageDraw, ImageFont

from t2i_tools.bundled.scenes import LABELS, SPRITES

EMOJI = dict(zip(LABELS, "🍎⚽🍌🚙🐱🐶🐟🌸🐸⭐🌲☂", strict=True))
FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
SIDE = 128


def sprite(emoji: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """The emoji cropped to what is visible and centred on a transparent square."""
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((4, 4), emoji, font=font, embedded_color=True)
    glyph = canvas.crop(canvas.getbbox())
    scale = SIDE / max(glyph.size)
    glyph = glyph.resize([round(side * scale) for side in glyph.size], Image.Resampling.LANCZOS)
    tile = Image.new("RGBA", (SIDE, SIDE))
    tile.paste(glyph, ((SIDE - glyph.width) // 2, (SIDE - glyph.height) // 2))
    return tile


if __name__ == "__main__":
    font = ImageFont.truetype(sys.argv[1] if len(sys.argv) > 1 else FONT, 109)
    sheet = Image.new("RGBA", (SIDE * len(LABELS), SIDE))
    for index, label in enumerate(LABELS):
        sheet.paste(sprite(EMOJI[label], font), (index * SIDE, 0))
    sheet.save(SPRITES, optimize=True)
