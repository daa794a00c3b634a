"""Measures a candidate for the bundled UNet on dev's seeds and prints what it is; the card is evaluate.py's alone.

`python candidate.py FOLDER [--number 324] [--steps 20] [--guidance 3] [--layouts 0]`: FOLDER holds config.json and
diffusion_pytorch_model.safetensors; without it the shipped UNet is measured. `--lora FILE --steps 4 --guidance 1`
measures a four-step form. A newcomer's wordings first, then so many prompts of layouts.
"""

from argparse import ArgumentParser

from card import percent
from diffusers import UNet2DConditionModel
from evaluate import Form, measure_layouts, measure_newcomer

from t2i_tools.bundled import BUNDLED_GUIDANCE, BUNDLED_STEPS, load_bundled

SEED = 4_000_000  # dev's images; the test split's lie below 1,000,000


def lines(figures: dict) -> list[str]:
    """One line per figure, those of each number among them."""
    each = {f"exact {number}": figure for number, figure in figures["exact"].items()}
    plain = {name: figure for name, figure in figures.items() if name != "exact"}
    return [f"{name}: {percent(figure)}" for name, figure in {**plain, **each}.items()]


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="the candidate; the shipped UNet by default")
    parser.add_argument("--number", type=int, default=324, help="images of a newcomer's wordings")
    parser.add_argument("--layouts", type=int, default=0, help="images of layouts")
    parser.add_argument("--steps", type=int, default=BUNDLED_STEPS)
    parser.add_argument("--guidance", type=float, default=BUNDLED_GUIDANCE)
    parser.add_argument("--lora", help="a LoRA of the UNet")
    options = parser.parse_args()
    pipe = load_bundled()
    if options.folder:
        pipe.unet = UNet2DConditionModel.from_pretrained(options.folder)
    if options.lora:
        pipe.load_lora_weights(options.lora)
        pipe.fuse_lora()
    form = Form(pipe, options.steps, options.guidance)
    figures = measure_newcomer(options.number, SEED, form)
    if options.layouts:
        figures["layouts"] = measure_layouts(options.layouts, SEED, form, "dev")["recall"]
    print("\n".join(lines(figures)))


if __name__ == "__main__":
    main()
