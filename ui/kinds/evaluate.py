"""How often the count asked for is the count in the image: a batch with a report, that goes on where it was stopped."""

import hashlib
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from t2i_tools.cli.judges import clip_on, judge_on
from t2i_tools.cli.options import BUNDLED
from t2i_tools.cli.planning import items_of, plan
from t2i_tools.cli.running import finish
from t2i_tools.errors import InputError
from t2i_tools.evaluation.items import Item, digest, make_items
from t2i_tools.evaluation.methods import METHODS
from t2i_tools.sizes import parse_size
from t2i_tools.ui.options import AppOptions
from t2i_tools.ui.shelf import Choice, Shelf, pick
from t2i_tools.ui.values import Guidance, Name, Prompt, Seed, Steps, Values, check_at_most, check_size

if TYPE_CHECKING:
    from t2i_tools.ui.worker import Bench

REPORT = ("report.html", "report.csv", "report.md", "rows.jsonl")
SHOWN = 12
STAGES = {"generate": "images", "detect": "counted", "score": "scored"}


class Row(Values):
    """One prompt, and what is to be counted in its image."""

    prompt: Prompt
    label: Name
    count: Annotated[int, Field(ge=0, le=100)]
    seed: Seed | None = None


class EvaluateValues(Values):
    """A batch of counts with its report. prompts: rows of prompt, label, count, or the built-in benchmark's counts and
    number. methods and sizes: each prompt is made with all. name: the same name and values go on with what is there.
    """

    prompts: list[Row] = []
    counts: Name = "2,3,4,5,7,10"
    number: Annotated[int, Field(ge=1)] | None = 24
    methods: list[Name] = ["plain"]
    sizes: list[Name] = []
    steps: Steps | None = None
    guidance: Guidance | None = None
    judge: Name = "bundled"
    batch: Annotated[int, Field(ge=1, le=64)] = 8
    model: Name = ""
    name: Annotated[str, Field(pattern=r"^[\w-]{1,60}$")] | None = None

    def items(self, model: str) -> list[Item]:
        """What is to be made. Raises InputError."""
        size = ",".join(self.sizes) or None
        if not self.prompts:
            return items_of(model, None, "dev", self.counts, self.number, ",".join(self.methods), size)
        if unknown := [method for method in self.methods if method not in METHODS]:
            raise InputError(f"unknown method {unknown[0]!r}: choose {', '.join(METHODS)}")
        rows = [row.model_dump(exclude_none=True) for row in self.prompts]
        return make_items(rows, self.methods, [parse_size(text) for text in self.sizes] or [None])

    def settled(self, options: AppOptions, shelf: Shelf) -> "EvaluateValues":
        """With a name, and checked as far as that goes without the model."""
        for size in self.sizes:
            check_size(size, options.limits)
        check_at_most("steps", self.steps, options.limits.steps)
        pick(self.judge, shelf.judges(), "judge")
        items = self.items(shelf.options(Choice(self.model)).model)
        check_at_most("images", len(items), options.limits.items)
        for item in items:
            item.request()
        name = self.name or f"counts-{digest(self.model_dump())[:8]}"
        return self.model_copy(update={"name": name})


def run(values: EvaluateValues, bench: "Bench") -> None:
    """The folder of the evaluation and its report; what is done there is not done again."""
    from t2i_tools.evaluation.manifest import Settings, settle
    from t2i_tools.evaluation.runner import run_shard
    from t2i_tools.evaluation.stages import Models

    folder = bench.output / "files" / folder_name(bench.job.owner, values.name)
    bench.result = {"name": values.name}
    with bench.pipeline(Choice(values.model)) as (pipe, options):
        import torch

        items = values.items(options.model)
        labels = tuple(sorted({item.label for item in items if item.label}))
        clip = BUNDLED if options.model == BUNDLED else None
        models = Models(
            pipeline=lambda _: pipe,
            judge=partial(judge_on, values.judge, None, labels),
            clip=partial(clip_on, clip) if clip else None,
        )
        settings = Settings(batch=values.batch, threads=torch.get_num_threads())
        about = {"benchmark": "own prompts" if values.prompts else "counts-bundled", "split": "dev"}
        usual = (values.steps, values.guidance)
        manifest, opened = plan(items, settings, models, options, (values.judge, clip), usual, about)
        settle(folder, manifest)
        run_shard(folder, opened, on_batch=partial(_tell, bench, folder))
    finish(folder, None, None, show=False)
    files = [path for name in REPORT if (path := folder / name).exists()]
    bench.live.files = files
    bench.result["files"] = [bench.name(path) for path in files]


def folder_name(owner: str, name: str) -> str:
    """The name of an owner's evaluation's folder, which another user cannot guess."""
    return f"evaluation-{hashlib.sha256(owner.encode()).hexdigest()[:16]}-{re.sub(r'[^A-Za-z0-9_-]', '_', name)}"


def _tell(bench: "Bench", folder: Path, stage: str, done: int, total: int) -> None:
    bench.check()
    bench.live.tell(done, total, f"{STAGES[stage]} {done} of {total}")
    images = sorted(folder.glob("images/*.png"), key=lambda path: path.stat().st_mtime)
    bench.live.files = images[-SHOWN:]
