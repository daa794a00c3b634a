"""`t2i sizes`: one prompt and seed at several sizes, without and with entropy scaling, in one labelled image."""

import random
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from t2i_tools.cli import options
from t2i_tools.cli.tokens import print_notes
from t2i_tools.errors import InputError
from t2i_tools.files import remove_dead_parts
from t2i_tools.images.generate import Request, check_request
from t2i_tools.images.sizes import Size, format_size, parse_sizes, possible_size
from t2i_tools.models.anatomy import longest_side, size_multiple
from t2i_tools.workflows.detectors import JUDGES
from t2i_tools.workflows.open_model import ModelOptions, open_model
from t2i_tools.workflows.outputs import check_folder
from t2i_tools.workflows.plugins import PluginOptions, maker, own_scaling_note

SHAPES = ((0.5, 0.5), (1, 1), (1, 2), (1.5, 1.5), (2, 1), (2, 2))  # height and width in native sides

# Column -> the options of its own.
COLUMNS = {
    "two-pass": ("two_pass", "two_pass_strength"),
    "deep shrink": ("deep_shrink", "deep_shrink_share", "deep_shrink_level"),
}


@options.with_options(
    ModelOptions,
    PluginOptions,
    without=("entropy_scaling", "compare", "long_prompts", "long_clip", "count_token", "embedding"),
)
def sizes(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to draw; in quotes.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="For sizes.png, sizes.json and the images.")
    ],
    sizes: Annotated[
        str | None,
        typer.Option(metavar="WxH,WxH...", help="Sizes; from half to twice the model's own by default."),
    ] = None,
    fit: options.Fit = "crop",
    negative: options.Negative = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    seed: options.Seed = None,
    label: options.Label = None,
    judge: options.Judge = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    **option_values: Any,
) -> None:
    """Compare sizes in one labelled image on one seed: off, entropy scaling, and --two-pass, --deep-shrink if given."""
    from t2i_tools.evaluation.grid import Axis, Cell, draw_grid, make_cell, read_cells
    from t2i_tools.images.metadata import save_image
    from t2i_tools.workflows.grid import count_in, image_context, write_json
    from t2i_tools.workflows.progress import batch_progress
    from t2i_tools.workflows.settings import image_settings, with_defaults

    chosen, plugins = options.pick(ModelOptions, option_values), options.pick_values(PluginOptions, option_values)
    groups = {title: {name: plugins.pop(name) for name in names} for title, names in COLUMNS.items()}
    columns = {"off": PluginOptions(), "entropy scaling": PluginOptions(True, **plugins)}
    for title, values in groups.items():
        if any(value is not None and value is not False for value in values.values()):
            columns[title] = PluginOptions(native=plugins["native"], **values)
    asked = [] if sizes is None else parse_sizes(sizes)
    fixed: dict[str, Any] = {"fit": fit, "negative": negative, "steps": steps, "guidance": guidance}
    fixed["seed"] = random.randrange(2**32) if seed is None else seed
    requests = [Request(prompt, size=one, **fixed) for one in (asked or (None,))]
    if judge and not label:
        raise InputError("--judge counts the objects of a class: add --label CLASS")
    options.check_fit_acts(fit, sizes is not None)
    check_folder(output, ("sizes.json", "cells"))
    measure = count_in(judge or JUDGES[0], label) if label else None
    pipe = open_model(chosen)
    if not quiet:
        print_notes(own_scaling_note(pipe))
    if not asked:
        trained = columns["entropy scaling"].native_of(pipe)
        usual = usual_sizes(trained, size_multiple(pipe), longest_side(pipe))
        requests = [replace(requests[0], size=one) for one in usual]
    requests = [with_defaults(request, pipe, chosen.model) for request in dict.fromkeys(requests)]
    for request in requests:
        check_request(pipe, request)
    remove_dead_parts(output)
    context = image_context(pipe, chosen)
    files: list[Path] = []
    with batch_progress(not quiet) as on_image:
        for request, (method, acting) in product(requests, columns.items()):
            cell = Cell({"size": _shown(request), "method": method}, request)
            own, settings = context | {"plugins": asdict(acting)}, image_settings(pipe, chosen, request)
            files.append(make_cell(pipe, cell, output, own, settings, maker(acting)))
            on_image("generate", len(files), len(requests) * len(columns))
    pictures = read_cells(files)
    rows = [
        {"file": str(file.relative_to(output)), "method": column, **size_and_plugins(file)}
        for file, column in zip(files, list(columns) * len(requests), strict=True)
    ]
    for one, picture in zip(rows, pictures, strict=True):
        one |= measure(picture, requests[0]) if measure else {}
    axes = [Axis("", tuple(columns)), Axis("", tuple(map(_shown, requests)))]
    write_json(output / "sizes.json", {"prompt": prompt, "seed": fixed["seed"], "images": rows})
    sheet = draw_grid(axes, pictures, [caption(one, label) for one in rows])
    save_image(sheet, output / "sizes.png", {"prompt": prompt, "seed": fixed["seed"]})
    if as_json:
        print((output / "sizes.json").read_text(encoding="utf-8"), end="")
    elif not quiet:
        print(output / "sizes.png")


def usual_sizes(native: Size, multiple: int, longest: int | None = None) -> list[Size]:
    """Sizes around the native one, (height, width), that the model can make."""
    found = [possible_size((round(native[0] * h), round(native[1] * w)), multiple, "snap") for h, w in SHAPES]
    return [size for size in found if longest is None or max(size) <= longest]


def size_and_plugins(file: Path) -> dict[str, Any]:
    """What an image's file says of its size and plugins."""
    from t2i_tools.images.metadata import read_settings

    settings = read_settings(file)
    names = ("width", "height", "entropy_scaling", "two_pass", "deep_shrink")
    return {name: settings[name] for name in names if name in settings}


def caption(row: dict[str, Any], label: str | None) -> str:
    """What stands under an image: how the plugin acted, and how many objects there are."""
    lines = []
    if gain := row.get("entropy_scaling", {}).get("gain"):
        lines.append("gain 1: as without" if gain == [1.0, 1.0] else f"gain {gain[0]:.2f} to {gain[1]:.2f}")
    if first := row.get("two_pass", {}).get("first"):
        lines.append(f"first {first}")
    if shrunk := row.get("deep_shrink"):
        lines.append(f"shrunk in {shrunk['steps']} steps" if shrunk["steps"] else "as without")
    return "\n".join([*lines, *([f"{label}: {row[label]}"] if label else [])])


def _shown(request: Request) -> str:
    return format_size(request.size) if request.size else "the model's own"
