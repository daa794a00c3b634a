"""One prompt over axes of sizes, seeds, steps or words, every cell measured, in one labelled image."""

import random
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from PIL import Image
from pydantic import Field

from t2i_tools.evaluation.grid import Axis, Cell, grid_cells, parse_axis
from t2i_tools.images.generate import Request
from t2i_tools.images.sizes import format_size
from t2i_tools.workflows.detectors import JUDGES, check_labels, judge_on
from t2i_tools.workflows.grid import Measure, fill_grid, measures_of
from t2i_tools.workflows.plugins import PluginOptions, plugin_axes, plugins_of

from ..errors import at_field
from ..objects import asked_counts, count_objects
from ..options import AppOptions
from ..registry import NONE, Choice, Registry, look_up
from ..values import Guidance, JobValues, Name, Prompt, Seed, Steps, check_at_most, check_prompt, check_size, size_of

if TYPE_CHECKING:
    from ..job_context import JobContext


GRID = "grid.png"  # all cells in one image


class GridValues(JobValues):
    """An image of one prompt over axes. axes: "steps=5,10", "entropy-scaling=off,on" or, with "a {colour} cat" as
    prompt, "colour=red,blue"; the first goes across. label: a class to count in every cell. clip: scores every cell, or
    "none"; by default the bundled one those of the bundled model.
    """

    prompt: Prompt = ""
    axes: Annotated[list[Prompt], Field(max_length=8)] = []
    negative: Prompt | None = None
    size: Name | None = None
    steps: Steps | None = None
    guidance: Guidance | None = None
    seed: Seed | None = None
    label: Name | None = None
    judge: Name = JUDGES[0]
    clip: Name | None = None
    model: Name = ""

    def parsed_axes(self) -> list[Axis]:
        """The axes. Raises InputError."""
        return [parse_axis(text) for text in self.axes]

    def count(self) -> int:
        """How many cells there are. Raises InputError."""
        return prod(len(axis.values) for axis in self.parsed_axes())

    def cells(self) -> list[Cell]:
        """One per combination. Raises InputError."""
        seed = self.seed or 0  # drawn by `validated`
        fixed: dict[str, Any] = {"negative": self.negative, "steps": self.steps, "guidance": self.guidance}
        fixed |= {"seed": seed, "size": size_of(self.size)}
        return grid_cells(self.prompt, self.parsed_axes(), fixed, plugin_axes())

    def planned(self) -> list[Request]:
        """One per cell."""
        return [cell.request for cell in self.cells()]

    def plugins(self, registry: Registry) -> list[PluginOptions]:
        """Those of each cell. Raises InputError."""
        return [plugins_of(registry.with_files(cell.plugins)) for cell in self.cells()]

    def validated(self, options: AppOptions, registry: Registry) -> "GridValues":
        """With a seed, and checked as far as that goes without the model."""
        seed = random.randrange(2**32) if self.seed is None else self.seed
        values = self.model_copy(update={"seed": seed})
        check_size(self.size, options.limits)
        check_at_most("steps", self.steps, options.limits.steps)
        check_prompt(self.prompt)
        with at_field("axes"):
            check_at_most("cells", values.count(), options.limits.cells)
            values.plugins(registry)
            for request in {cell.request for cell in values.cells()}:
                check_size(request.size and format_size(request.size), options.limits)
                check_at_most("steps", request.steps, options.limits.steps)
        look_up(self.judge, registry.judges(), "judge")
        registry.clip_for(self.clip, Choice(self.model))
        return values


def run(values: GridValues, context: "JobContext") -> None:
    """grid.png and one file per cell; cells that are there are not made again."""
    with context.pipeline(Choice(values.model)) as (pipe, options):
        clip = context.registry.clip_for(values.clip, Choice(values.model))
        measures, objects = measures_of(None, values.judge, clip or NONE), list[list[dict[str, Any]]]()
        if values.label:
            measures = [counting(values.judge, values.label, objects), *measures]
        axes, cells, acting = values.parsed_axes(), values.cells(), values.plugins(context.registry)
        context.progress.files = finished_cells(context)
        report = partial(_report, context)
        picture, rows = fill_grid(pipe, options, values.prompt, axes, cells, acting, context.folder, measures, report)
    files = [picture, *(context.folder / row["file"] for row in rows)]
    context.progress.files = files
    table = [{name: value for name, value in row.items() if name != "file"} for row in rows]
    context.result = {
        "files": [context.name(path) for path in files],
        "cells": table,
        "seed": values.seed,
        "objects": objects,
    }


def counting(judge: str, label: str, objects: list[list[dict[str, Any]]]) -> Measure:
    """Counts a class in each cell and appends it, with its boxes, to `objects`. Raises InputError for one that the
    judge does not know.
    """
    counter = judge_on(judge, None, (label,), None)
    check_labels(counter, [label], judge)

    def measure(image: Image.Image, request: Request) -> dict[str, Any]:
        found = count_objects(image, {label: asked_counts(request.prompt).get(label)}, counter)
        objects.append(found)
        return {label: found[0]["counted"]}

    return measure


def _report(context: "JobContext", stage: str, done: int, total: int) -> None:
    context.progress.files = finished_cells(context)
    context.pause()
    context.progress.report(done, total, f"cell {done} of {total}")


def finished_cells(context: "JobContext") -> list[Path]:
    """The cells that are there, in the order in which they were made, which is that of the grid."""
    return sorted((context.folder / "cells").glob("*.png"), key=lambda path: path.stat().st_mtime_ns)
