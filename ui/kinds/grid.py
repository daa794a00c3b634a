"""One prompt over axes of sizes, seeds, steps or words, every cell measured, in one labelled picture."""

import random
from functools import partial
from typing import TYPE_CHECKING

from t2i_tools.cli.grid import fill_grid, measures_of
from t2i_tools.cli.plugins import PluginOptions, plugin_axes, plugins_of
from t2i_tools.evaluation.grid import Axis, Cell, grid_cells, parse_axis
from t2i_tools.sizes import format_size, parse_size
from t2i_tools.ui.options import AppOptions
from t2i_tools.ui.shelf import NONE, Choice, Shelf, pick
from t2i_tools.ui.values import Guidance, Name, Prompt, Seed, Steps, Values, check_at_most, check_size

if TYPE_CHECKING:
    from t2i_tools.ui.worker import Bench


class GridValues(Values):
    """A picture of one prompt over axes. axes: "steps=5,10", "entropy-scaling=off,on" or, with "a {colour} cat" as
    prompt, "colour=red,blue"; the first goes across. label: a class to count in every cell. clip: scores every cell, or
    "none"; by default the bundled one those of the bundled model.
    """

    prompt: Prompt = ""
    axes: list[Prompt] = []
    negative: Prompt | None = None
    size: Name | None = None
    steps: Steps | None = None
    guidance: Guidance | None = None
    seed: Seed | None = None
    label: Name | None = None
    judge: Name = "bundled"
    clip: Name | None = None
    model: Name = ""

    def parsed_axes(self) -> list[Axis]:
        """The axes. Raises InputError."""
        return [parse_axis(text) for text in self.axes]

    def cells(self) -> list[Cell]:
        """One a combination. Raises InputError."""
        fixed = {"negative": self.negative, "steps": self.steps, "guidance": self.guidance, "seed": self.seed}
        fixed["size"] = self.size and parse_size(self.size)
        return grid_cells(self.prompt, self.parsed_axes(), fixed, plugin_axes())

    def plugins(self, shelf: Shelf) -> list[PluginOptions]:
        """Those of each cell. Raises InputError."""
        return [plugins_of(shelf.resolved(cell.plugins)) for cell in self.cells()]

    def settled(self, options: AppOptions, shelf: Shelf) -> "GridValues":
        """With a seed, and checked as far as that goes without the model."""
        seed = random.randrange(2**32) if self.seed is None else self.seed
        values = self.model_copy(update={"seed": seed})
        cells = values.cells()
        check_at_most("cells", len(cells), options.limits.cells)
        values.plugins(shelf)
        for request in {cell.request for cell in cells}:
            check_size(request.size and format_size(request.size), options.limits)
            check_at_most("steps", request.steps, options.limits.steps)
        pick(self.judge, shelf.judges(), "judge")
        shelf.clip_for(self.clip, Choice(self.model))
        return values


def run(values: GridValues, bench: "Bench") -> None:
    """grid.png and a file a cell; cells that are there are not made again."""
    with bench.pipeline(Choice(values.model)) as (pipe, options):
        clip = bench.shelf.clip_for(values.clip, Choice(values.model))
        measures = measures_of(values.label, values.judge, clip or NONE)
        axes, cells, acting = values.parsed_axes(), values.cells(), values.plugins(bench.shelf)
        tell = partial(_tell, bench)
        picture, rows = fill_grid(pipe, options, values.prompt, axes, cells, acting, bench.folder, measures, tell)
    files = [picture, *(bench.folder / row["file"] for row in rows)]
    bench.live.files = files
    table = [{name: value for name, value in row.items() if name != "file"} for row in rows]
    bench.result = {"files": [bench.name(path) for path in files], "cells": table, "seed": values.seed}


def _tell(bench: "Bench", stage: str, done: int, total: int) -> None:
    bench.check()
    bench.live.tell(done, total, f"cell {done} of {total}")
