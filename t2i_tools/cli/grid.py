"""`t2i grid`: one prompt over axes of parameters and words, in one labelled picture."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t2i_tools.cli import options
from t2i_tools.cli.outputs import check_place
from t2i_tools.cli.plugins import PluginOptions, maker, plugin_axes, plugins_of
from t2i_tools.sizes import parse_size

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL import Image

    from t2i_tools.evaluation.grid import Axis, Cell
    from t2i_tools.generation import Request

Measure = Callable[["Image.Image", "Request"], Mapping[str, Any]]


@options.with_options(options.ModelOptions, PluginOptions, without=("compare", "count_token"))
def grid(
    prompt: Annotated[str, typer.Argument(help='What to draw; "a {colour} cat" takes --axis colour=red,blue.')],
    axis: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=V,V...",
            help="size, seed, steps, guidance, a word, a plugin's option, as in entropy-scaling=off,on; the first goes "
            "across.",
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="For grid.png, grid.json and the cells.")],
    negative: options.Negative = None,
    size: options.ImageSize = None,
    fit: options.Fit = "crop",
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    seed: Annotated[int | None, typer.Option(help="Of every cell; random by default.")] = None,
    label: Annotated[str | None, typer.Option(help="Count this class in every cell.")] = None,
    judge: options.Judge = options.BUNDLED,
    clip: Annotated[
        str | None, typer.Option(metavar="bundled|FOLDER|HUB_ID|none", help="The CLIP that scores every cell.")
    ] = None,
    quiet: options.QuietPicture = False,
    **given: Any,
) -> None:
    """Compare sizes, seeds, steps, words, plugins... in a grid; cells that are there are not made again."""
    from t2i_tools.cli.running import progress
    from t2i_tools.evaluation.grid import grid_cells, parse_axis

    axes = [parse_axis(text) for text in axis]
    fixed = {"negative": negative, "fit": fit, "steps": steps, "guidance": guidance}
    fixed |= {"size": size and parse_size(size), "seed": random.randrange(2**32) if seed is None else seed}
    cells = grid_cells(prompt, axes, fixed, plugin_axes())
    chosen = options.pick(options.ModelOptions, given)
    plugins = options.named(PluginOptions, given)
    if not any(cell.plugins for cell in cells):
        PluginOptions(**plugins)  # complains of an option whose plugin is off in every cell
    acting = [plugins_of({**plugins, **cell.plugins}) for cell in cells]
    check_place(output)
    measures = measures_of(label, judge, clip or (options.BUNDLED if chosen.model == options.BUNDLED else "none"))
    pipe = options.open_model(chosen)
    with progress(not quiet) as on_cell:
        picture, _ = fill_grid(pipe, chosen, prompt, axes, cells, acting, output, measures, on_cell)
    if not quiet:
        print(picture)


def fill_grid(
    pipe: "DiffusionPipeline",
    chosen: options.ModelOptions,
    prompt: str,
    axes: "Sequence[Axis]",
    cells: "Sequence[Cell]",
    acting: Sequence[PluginOptions],
    output: Path,
    measures: "Sequence[Measure]",
    on_cell: Callable[[str, int, int], None],
) -> tuple[Path, list[dict[str, Any]]]:
    """Make the cells that are not there yet, measure all and write grid.png and grid.json.

    acting: the plugins of each cell. on_cell: called with ("generate", done, in all). Returns the picture's path and
    one row a cell, as in grid.json. Raises T2IError.
    """
    from t2i_tools.cli.generate import image_settings, with_defaults
    from t2i_tools.evaluation.grid import draw_grid, make_cell, read_cells
    from t2i_tools.generation import check_request
    from t2i_tools.imagefile import save_image

    cells = [replace(cell, request=with_defaults(cell.request, pipe, chosen.model)) for cell in cells]
    for cell in cells:
        check_request(pipe, cell.request)
    context, files = image_context(pipe, chosen), []
    for cell, on in zip(cells, acting, strict=True):
        own, settings = context | {"plugins": asdict(on)}, image_settings(pipe, chosen, cell.request)
        files.append(make_cell(pipe, cell, output, own, settings, maker(on)))
        on_cell("generate", len(files), len(cells))
    pictures = read_cells(files)
    measured = [
        {name: value for measure in measures for name, value in measure(picture, cell.request).items()}
        for picture, cell in zip(pictures, cells, strict=True)
    ]
    captions = ["\n".join(f"{name} {value}" for name, value in one.items()) for one in measured]
    told = [
        {"file": str(file.relative_to(output)), **cell.values, **one}
        for file, cell, one in zip(files, cells, measured, strict=True)
    ]
    write_json(output / "grid.json", {"prompt": prompt, "axes": {a.name: a.values for a in axes}, "cells": told})
    about = {"prompt": prompt, "axes": [f"{axis.name}={'|'.join(axis.values)}" for axis in axes]}
    save_image(draw_grid(axes, pictures, captions), output / "grid.png", about)
    return output / "grid.png", told


def measures_of(label: str | None, judge: str, clip: str) -> "list[Measure]":
    """What is measured in each cell: how many of the class, and the CLIP score unless it is "none". Raises T2IError."""
    return [*([count_in(judge, label)] if label else []), *([clip_score_of(clip)] if clip != "none" else [])]


def count_in(judge: str, label: str) -> Measure:
    """Counts a class in a picture. Raises InputError for one that the judge does not know."""
    from t2i_tools.cli.judges import check_labels, judge_on

    counter = judge_on(judge, None, (label,), None)
    check_labels(counter, [label], judge)
    return lambda image, request: {label: counter.detect([image], label)[0].count}


def clip_score_of(name: str) -> Measure:
    """Scores a picture with its prompt."""
    from t2i_tools.cli.judges import clip_on
    from t2i_tools.metrics import image_embeddings, text_embeddings

    model, tokenizer, pixels = clip_on(name, None)

    def score(image: "Image.Image", request: "Request") -> dict[str, float]:
        seen, read = image_embeddings(model, [image], **pixels), text_embeddings(model, tokenizer, [request.prompt])[0]
        return {"CLIP": round(float(100 * (seen * read).sum()), 2)}

    return score


def image_context(pipe: "DiffusionPipeline", chosen: options.ModelOptions) -> dict[str, Any]:
    """What determines an image besides its request."""
    import torch

    from t2i_tools.evaluation.fingerprint import pipeline_fingerprint
    from t2i_tools.evaluation.manifest import installed_versions
    from t2i_tools.models import denoiser

    machine = {"device": denoiser(pipe).device.type, "threads": torch.get_num_threads(), "tiling": chosen.vae_tiling}
    return {"model": pipeline_fingerprint(pipe), "versions": installed_versions(), **machine}


def write_json(path: Path, value: Any) -> None:
    """Write it complete or not at all."""
    from t2i_tools.evaluation.files import write_text

    write_text(path, json.dumps(value, indent=1) + "\n")
