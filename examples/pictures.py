"""Draws README's pictures of what the plugins do, with the bundled model; every picture of the first seed, none picked.

python examples/pictures.py [overview] [any_size] [long_prompts] [exact_counts] [padding] [drop_in]
"""

import argparse
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from PIL import Image

import t2i_tools as t2i
from t2i_tools.bundled import BUNDLED_GUIDANCE, BUNDLED_STEPS
from t2i_tools.evaluation.grid import Axis, draw_grid
from t2i_tools.images.sizes import format_size
from t2i_tools.pipelines import AdaptiveStableDiffusionPipeline

FOLDER = Path(__file__).with_name("pictures")
LONG = "a cat at the top left, a star at the bottom right, " * 8 + "on a green background"
CAT = "a cat on a green background"
USUAL = {"steps": BUNDLED_STEPS, "guidance": BUNDLED_GUIDANCE}
COLOURS = 128  # of a palette, which keeps a file small


def call(pipe, prompt: str, **options) -> Image.Image:
    """The picture of seed 0."""
    usual = {"num_inference_steps": BUNDLED_STEPS, "guidance_scale": BUNDLED_GUIDANCE}
    return pipe(prompt, generator=torch.Generator().manual_seed(0), **usual, **options).images[0]


def any_size(pipe) -> Image.Image:
    """Sizes across, off and on down."""
    sizes, pictures = ((64, 128), (128, 128), (128, 192), (192, 192)), []
    for on in (False, True):
        for height, width in sizes:
            with t2i.entropy_scaling(pipe) if on else nullcontext():
                pictures.append(call(pipe, "three stars on a pink background", height=height, width=width))
    return sheet(tuple(map(format_size, sizes)), ("off", "entropy scaling"), pictures)


def long_prompts(pipe) -> Image.Image:
    """A prompt whose last words only long_prompts reads."""
    pictures = [call(pipe, LONG)]
    for method in ("chunk", "stretch"):
        with t2i.long_prompts(pipe, method):
            pictures.append(call(pipe, LONG))
    return sheet(("77 tokens", "chunk", "stretch"), ("",), pictures)


def exact_counts(pipe) -> Image.Image:
    """Numbers asked for across; the first step of a search and the best one down, with what the detector counts."""
    numbers, counter, first, best = range(4, 10), t2i.load_bundled_counter(), [], []
    for n in numbers:
        search = t2i.optimize_count(pipe, "a photo of {count} apples", n, counter, method="bisection", budget=16)
        steps = list(search)
        for row, step in ((first, steps[0]), (best, min(steps, key=lambda step: step.error))):
            row.append((step.images[0], f"{step.counted[0]['apple']}"))
    pictures, counts = zip(*first, *best, strict=True)
    return sheet(tuple(map(str, numbers)), ("plain", "token searched"), pictures, counts)


def padding(pipe) -> Image.Image:
    """All rows of the text, and some of them in those of an empty prompt."""
    keeps, usual = ("full", "prompt", "pads", "clean"), {"guidance_scale": BUNDLED_GUIDANCE}
    generator = torch.Generator().manual_seed(0)
    outputs = t2i.compare_conditions(
        pipe, "two cats", keeps, generator=generator, num_inference_steps=BUNDLED_STEPS, **usual
    )
    return sheet(keeps, ("",), [output.images[0] for output in outputs])


def drop_in(pipe) -> Image.Image:
    """The same call of the stock pipeline, and of the adaptive one with two plugins."""
    adaptive = AdaptiveStableDiffusionPipeline.from_pipe(pipe)
    adaptive.set_progress_bar_config(disable=True)
    size = {"height": 128, "width": 192}
    ours = call(adaptive, LONG, **size, entropy_scaling=True, long_prompts="chunk")
    return sheet(("stock", "entropy_scaling=True, long_prompts='chunk'"), ("",), [call(pipe, LONG, **size), ours])


def overview(pipe) -> Image.Image:
    """All four plugins: the plain image above, with the plugin below."""
    stars = t2i.Request("three stars on a pink background", 0, size=(192, 192), **USUAL)
    plain = [call(pipe, stars.prompt, height=192, width=192), call(pipe, "a photo of six apples")]
    plain += [call(pipe, LONG), call(pipe, CAT)]
    ours = [t2i.two_pass(pipe, [stars])[0]]
    search = t2i.optimize_count(pipe, "a photo of {count} apples", 6, t2i.load_bundled_counter(), method="bisection")
    ours.append(search.run().images[0])
    with t2i.long_prompts(pipe, "chunk"):
        ours.append(call(pipe, LONG))
    with t2i.diffusion_intervention(pipe, "pads"):
        ours.append(call(pipe, CAT))
    columns = ("three stars, 192x192", "six apples", '116 tokens, "... on green"', CAT)
    above = ["one pass", "five", "cut at 77", "all rows of the text"]
    below = ["two passes", "six", "read to the end", "the rows of the padding"]
    return sheet(columns, ("plain", "with a plugin"), plain + ours, above + below)


def sheet(columns, rows, pictures, captions=None) -> Image.Image:
    """The pictures with their heads."""
    return draw_grid([Axis("", tuple(columns)), Axis("", tuple(rows))], pictures, captions or [""] * len(pictures))


PICTURES: Mapping[str, Callable[..., Image.Image]] = {
    one.__name__: one for one in (overview, any_size, long_prompts, exact_counts, padding, drop_in)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=list(PICTURES))
    args = parser.parse_args()
    pipe = t2i.load_bundled()
    pipe.set_progress_bar_config(disable=True)
    FOLDER.mkdir(exist_ok=True)
    for name in args.what:
        PICTURES[name](pipe).quantize(COLOURS).save(FOLDER / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
