"""`t2i grid`: one prompt over axes of parameters and words, in one labelled image."""

import random
from pathlib import Path
from typing import Annotated, Any

import typer

from t2i_tools.cli import options
from t2i_tools.cli.tokens import print_notes, print_vocabulary_note
from t2i_tools.errors import InputError
from t2i_tools.images.sizes import parse_size
from t2i_tools.workflows.detectors import JUDGES
from t2i_tools.workflows.grid import fill_grid, measures_of
from t2i_tools.workflows.open_model import BUNDLED, BUNDLED_FORMS, ModelOptions, open_model
from t2i_tools.workflows.outputs import check_folder
from t2i_tools.workflows.plugins import PluginOptions, own_scaling_note, plugin_axes, plugins_of


@options.with_options(ModelOptions, PluginOptions, without=("compare", "count_token"))
def grid(
    prompt: Annotated[
        str,
        typer.Argument(
            metavar="PROMPT",
            help='What to draw; in quotes. "a {color} cat" takes --axis color=red,blue.',
            show_default=False,
        ),
    ],
    axis: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=V,V...",
            help="What varies: size, seed, steps, guidance, a word in braces, a plugin's option as in "
            "entropy-scaling=off,on. The first axis goes across. Values with commas: NAME=V|V, or each in double "
            "quotes. May be repeated.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="For grid.png, grid.json and the images.")
    ],
    negative: options.Negative = None,
    size: options.ImageSize = None,
    fit: options.Fit = "crop",
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    seed: options.Seed = None,
    label: options.Label = None,
    judge: options.Judge = None,
    clip: options.Clip = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    **option_values: Any,
) -> None:
    """Compare sizes, seeds, steps, words or plugins in one labelled image. Images that are there are not made again."""
    from t2i_tools.evaluation.grid import grid_cells, parse_axis
    from t2i_tools.workflows.progress import batch_progress

    axes = [parse_axis(text) for text in axis]
    fixed: dict[str, Any] = {"negative": negative, "fit": fit, "steps": steps, "guidance": guidance}
    fixed |= {"size": size and parse_size(size), "seed": random.randrange(2**32) if seed is None else seed}
    cells = grid_cells(prompt, axes, fixed, plugin_axes())
    chosen = options.pick(ModelOptions, option_values)
    plugins = options.pick_values(PluginOptions, option_values)
    if not any(cell.plugins for cell in cells):
        PluginOptions(**plugins)  # complains of an option whose plugin is off in every cell
    acting = [plugins_of({**plugins, **cell.plugins}) for cell in cells]
    if judge and not label:
        raise InputError("--judge counts the objects of a class: add --label CLASS")
    options.check_fit_acts(fit, size is not None or any(one.name == "size" for one in axes))
    check_folder(output, ("grid.json", "cells"))
    measures = measures_of(label, judge or JUDGES[0], clip or (BUNDLED if chosen.model in BUNDLED_FORMS else "none"))
    pipe = open_model(chosen)
    if not quiet:
        print_vocabulary_note(chosen.model, [cell.request.prompt for cell in cells])
        if any(one.entropy_scaling for one in acting):
            print_notes(own_scaling_note(pipe))
    with batch_progress(not quiet) as on_cell:
        image, _ = fill_grid(pipe, chosen, prompt, axes, cells, acting, output, measures, on_cell)
    if as_json:
        print((output / "grid.json").read_text(encoding="utf-8"), end="")
    elif not quiet:
        print(image)
