"""Draws README's picture: prompts and what the bundled model makes of them, seeds 0 to 7, nothing picked."""

from pathlib import Path
from textwrap import wrap

import torch
from PIL import Image, ImageDraw, ImageFont

from t2i_tools.bundled import BUNDLED_GUIDANCE, BUNDLED_STEPS, load_bundled

PROMPTS = (
    "a frog on a pink background",
    "two cats on a blue background",
    "three stars on a purple background",
    "five bananas with a green background",
    "seven apples on a blue background",
    "two umbrellas and a dog on a yellow background",
    "a cat at the top left, a star in the middle, a tree at the bottom right",
    "a fish on the left, a car on the right on a gray background",
)
SIDE, LINES = 192, 3


def main() -> None:
    pipe = load_bundled()
    sheet = Image.new("RGB", (4 * (SIDE + 12) + 12, 2 * (SIDE + 16 * LINES + 16)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for index, prompt in enumerate(PROMPTS):
        generator = torch.Generator().manual_seed(index)
        image = pipe(
            prompt, num_inference_steps=BUNDLED_STEPS, guidance_scale=BUNDLED_GUIDANCE, generator=generator
        ).images[0]
        x, y = 12 + index % 4 * (SIDE + 12), 12 + index // 4 * (SIDE + 16 * LINES + 16)
        sheet.paste(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, y))
        draw.multiline_text((x, y + SIDE + 2), "\n".join(wrap(prompt, 30)), fill="black", font=font, spacing=2)
    sheet.save(Path(__file__).with_name("samples.png"), optimize=True)


if __name__ == "__main__":
    main()
