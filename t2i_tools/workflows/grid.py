"""A grid of images over axes, and what is measured in its cells."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i_tools.files import remove_dead_parts
from t2i_tools.workflows.detectors import check_labels, clip_on, judge_on
from t2i_tools.workflows.open_model import ModelOptions
from t2i_tools.workflows.plugins import PluginOptions, maker
from t2i_tools.workflows.settings import image_settings, with_defaults

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL import Image

    from t2i_tools.evaluation.grid import Axis, Cell
    from t2i_tools.images.generate import Request

Measure = Callable[["Image.Image", "Request"], Mapping[str, Any]]


def fill_grid(
    pipe: DiffusionPipeline,
    chosen: ModelOptions,
    prompt: str,
    axes: Sequence[Axis],
    cells: Sequence[Cell],
    acting: Sequence[PluginOptions],
    output: Path,
    measures: Sequence[Measure],
    on_cell: Callable[[str, int, int], None],
) -> tuple[Path, list[dict[str, Any]]]:
    """Make the cells that are not there yet, measure all and write grid.png and grid.json.

    acting: the plugins of each cell. on_cell: called with ("generate", done, in all). Returns the picture's path and
    one row a cell, as in grid.json. Raises T2IError.
    """
    from t2i_tools.evaluation.grid import draw_grid, make_cell, read_cells
    from t2i_tools.images.generate import check_request
    from t2i_tools.images.metadata import save_image

    remove_dead_parts(output)
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
    cell_rows = [
        {"file": str(file.relative_to(output)), **cell.values, **one}
        for file, cell, one in zip(files, cells, measured, strict=True)
    ]
    write_json(output / "grid.json", {"prompt": prompt, "axes": {a.name: a.values for a in axes}, "cells": cell_rows})
    about = {"prompt": prompt, "axes": [f"{axis.name}={'|'.join(axis.values)}" for axis in axes]}
    save_image(draw_grid(axes, pictures, captions), output / "grid.png", about)
    return output / "grid.png", cell_rows


def measures_of(label: str | None, judge: str, clip: str) -> list[Measure]:
    """What is measured in each cell: how many of the class, and the CLIP score unless it is "none". Raises T2IError."""
    return [*([count_in(judge, label)] if label else []), *([clip_score_of(clip)] if clip != "none" else [])]


def count_in(judge: str, label: str) -> Measure:
    """Counts a class in a picture. Raises InputError for one that the judge does not know."""
    counter = judge_on(judge, None, (label,), None)
    check_labels(counter, [label], judge)
    return lambda image, request: {label: counter.detect([image], label)[0].count}


def clip_score_of(name: str) -> Measure:
    """Scores a picture with its prompt."""
    scorer = clip_on(name, None)
    return lambda image, request: {"CLIP": round(float(scorer.score([image], [request.prompt])[0]), 2)}


def image_context(pipe: DiffusionPipeline, chosen: ModelOptions) -> dict[str, Any]:
    """What determines an image besides its request."""
    import torch

    from t2i_tools.evaluation.runs.fingerprint import pipeline_fingerprint
    from t2i_tools.evaluation.runs.manifest import installed_versions
    from t2i_tools.models.anatomy import denoiser

    machine = {"device": denoiser(pipe).device.type, "threads": torch.get_num_threads(), "tiling": chosen.vae_tiling}
    return {"model": pipeline_fingerprint(pipe), "versions": installed_versions(), **machine}


def write_json(path: Path, value: Any) -> None:
    """Write it complete or not at all."""
    from t2i_tools.evaluation.rows_io import write_text

    write_text(path, json.dumps(value, indent=1) + "\n")
