"""`t2i sizes`: one prompt and seed at several sizes, without and with entropy scaling, in one labelled picture."""

import random
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from t2i_tools.cli import options
from t2i_tools.cli.outputs import check_place
from t2i_tools.cli.plugins import PluginOptions, maker
from t2i_tools.errors import InputError
from t2i_tools.generation import Request, check_request
from t2i_tools.imagefile import read_settings, save_image
from t2i_tools.models import longest_side, size_multiple
from t2i_tools.sizes import FITS, Size, format_size, parse_size, possible_size

SHAPES = ((0.5, 0.5), (1, 1), (1, 2), (1.5, 1.5), (2, 1), (2, 2))  # height and width in native sides


@options.with_options(
    options.ModelOptions,
    PluginOptions,
    without=("entropy_scaling", "compare", "long_prompts", "long_clip", "count_token"),
)
def sizes(
    prompt: Annotated[str, typer.Argument(help="What to draw.", show_default=False)],
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="For sizes.png, sizes.json and the images.")],
    size: Annotated[
        str | None,
        typer.Option("--sizes", metavar="WxH,WxH...", help="From half to twice the model's own size by default."),
    ] = None,
    fit: options.Fit = "crop",
    negative: options.Negative = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    seed: Annotated[int | None, typer.Option(help="Of every image; random by default.")] = None,
    label: Annotated[str | None, typer.Option(help="Count this class in every image.")] = None,
    judge: options.Judge = options.BUNDLED,
    quiet: options.QuietPicture = False,
    **given: Any,
) -> None:
    """Compare sizes off | on: the same seed without and with entropy scaling, and in two passes with --two-pass."""
    from t2i_tools.cli.generate import image_settings, with_defaults
    from t2i_tools.cli.grid import count_in, image_context, write_json
    from t2i_tools.cli.running import progress
    from t2i_tools.evaluation.grid import Axis, Cell, draw_grid, make_cell, read_cells

    chosen, plugins = options.pick(options.ModelOptions, given), options.named(PluginOptions, given)
    passes = {name: plugins.pop(name) for name in ("two_pass", "two_pass_strength")}
    columns = {"off": PluginOptions(), "entropy scaling": PluginOptions(True, **plugins)}
    if passes != {"two_pass": False, "two_pass_strength": None}:
        columns["two-pass"] = PluginOptions(native=plugins["native"], **passes)
    asked = [parse_size(text) for text in size.split(",")] if size else []
    fixed = {"fit": fit, "negative": negative, "steps": steps, "guidance": guidance}
    fixed["seed"] = random.randrange(2**32) if seed is None else seed
    requests = [Request(prompt, size=one, **fixed) for one in asked or [None]]
    if fit not in FITS:
        raise InputError(f"unknown fit {fit!r}: choose {' or '.join(FITS)}")
    check_place(output)
    measure = count_in(judge, label) if label else None
    pipe = options.open_model(chosen)
    if not asked:
        trained = columns["entropy scaling"].native_of(pipe)
        usual = usual_sizes(trained, size_multiple(pipe), longest_side(pipe))
        requests = [replace(requests[0], size=one) for one in usual]
    requests = [with_defaults(request, pipe, chosen.model) for request in dict.fromkeys(requests)]
    for request in requests:
        check_request(pipe, request)
    context = image_context(pipe, chosen)
    files: list[Path] = []
    with progress(not quiet) as on_image:
        for request, (method, plugins) in product(requests, columns.items()):
            cell = Cell({"size": format_size(request.size), "method": method}, request)
            own, settings = context | {"plugins": asdict(plugins)}, image_settings(pipe, chosen, request)
            files.append(make_cell(pipe, cell, output, own, settings, maker(plugins)))
            on_image("generate", len(files), len(requests) * len(columns))
    pictures = read_cells(files)
    told = [
        {"file": str(file.relative_to(output)), "method": column, **told_of(file)}
        for file, column in zip(files, list(columns) * len(requests), strict=True)
    ]
    for one, picture in zip(told, pictures, strict=True):
        one |= measure(picture, requests[0]) if measure else {}
    axes = [Axis("", tuple(columns)), Axis("", tuple(format_size(request.size) for request in requests))]
    write_json(output / "sizes.json", {"prompt": prompt, "seed": fixed["seed"], "images": told})
    sheet = draw_grid(axes, pictures, [caption(one, label) for one in told])
    save_image(sheet, output / "sizes.png", {"prompt": prompt, "seed": fixed["seed"]})
    if not quiet:
        print(output / "sizes.png")


def usual_sizes(native: Size, multiple: int, longest: int | None = None) -> list[Size]:
    """Sizes around the native one, (height, width), that the model can make."""
    found = [possible_size((round(native[0] * h), round(native[1] * w)), multiple, "snap") for h, w in SHAPES]
    return [size for size in found if longest is None or max(size) <= longest]


def told_of(file: Path) -> dict[str, Any]:
    """What an image's file tells of its size and plugins."""
    settings = read_settings(file)
    return {name: settings[name] for name in ("width", "height", "entropy_scaling", "two_pass") if name in settings}


def caption(told: dict[str, Any], label: str | None) -> str:
    """What stands under an image: how the plugin acted, and how many objects there are."""
    lines = []
    if gain := told.get("entropy_scaling", {}).get("gain"):
        lines.append("gain 1: as without" if gain == [1.0, 1.0] else f"gain {gain[0]:.2f} to {gain[1]:.2f}")
    if first := told.get("two_pass", {}).get("first"):
        lines.append(f"first {first}")
    return "\n".join([*lines, *([f"{label}: {told[label]}"] if label else [])])
