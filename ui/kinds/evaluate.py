"""How often the count asked for is the count in the image: a batch with a report, that goes on where it was stopped."""

import hashlib
import json
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from t2i_tools.cli.judges import clip_on, judge_on
from t2i_tools.cli.planning import benchmark_name, items_of, plan, protocol_of
from t2i_tools.cli.running import finish
from t2i_tools.errors import InputError
from t2i_tools.evaluation.items import Item, digest, make_items
from t2i_tools.evaluation.methods import METHODS
from t2i_tools.evaluation.protocol import Protocol, parse_protocol
from t2i_tools.files import replacing
from t2i_tools.sizes import parse_size
from t2i_tools.ui.options import AppOptions
from t2i_tools.ui.shelf import Choice, Shelf, pick
from t2i_tools.ui.values import Guidance, Name, Prompt, Seed, Steps, Values, check_at_most, check_size

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.cli.options import ModelOptions
    from t2i_tools.evaluation.manifest import Manifest
    from t2i_tools.evaluation.stages import Models
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


class Rule(Values):
    """What an evaluation claims, as in protocol.json."""

    primary: Name = "exact"
    split: Name = "dev"
    unit: Name = "prompt"
    margin: float = 0.05
    baseline: Name | None = None
    level: float = 0.95

    def read(self) -> Protocol:
        """Checked. Raises InputError."""
        return parse_protocol(self.model_dump())


class EvaluateValues(Values):
    """A batch of counts with its report. prompts: rows of prompt, label, count, or the built-in benchmark's counts and
    number. methods and sizes: each prompt is made with all. split: "test" needs a protocol, which logs its runs. clip:
    scores every image, or "none". name: the same name and values go on with what is there.
    """

    prompts: list[Row] = []
    counts: Name = "2,3,4,5,7,10"
    number: Annotated[int, Field(ge=1)] | None = 24
    split: Literal["dev", "test"] = "dev"
    protocol: Rule | None = None
    methods: list[Name] = ["plain"]
    sizes: list[Name] = []
    steps: Steps | None = None
    guidance: Guidance | None = None
    judge: Name = "bundled"
    clip: Name | None = None
    batch: Annotated[int, Field(ge=1, le=64)] = 8
    model: Name = ""
    name: Annotated[str, Field(pattern=r"^[\w-]{1,60}$")] | None = None

    def items(self, model: str) -> list[Item]:
        """What is to be made. Raises InputError."""
        size = ",".join(self.sizes) or None
        if not self.prompts:
            return items_of(model, None, self.split, self.counts, self.number, ",".join(self.methods), size)
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
        shelf.clip_for(self.clip, Choice(self.model))
        self._check_protocol()
        items = self.items(shelf.options(Choice(self.model)).model)
        check_at_most("images", len(items), options.limits.items)
        for item in items:
            item.request()
        if self.protocol:
            self.protocol.read().baseline_of(self.methods)
        name = self.name or f"counts-{digest(self.model_dump())[:8]}"
        return self.model_copy(update={"name": name})

    def _check_protocol(self) -> None:
        """Raise InputError unless what is claimed was written down, and for this split."""
        if self.protocol is None:
            if self.split == "test":
                raise InputError("the test split needs a protocol: write down what is claimed before it is tested")
            return
        rule = self.protocol.read()
        if rule.split != self.split and not self.prompts:
            raise InputError(f"this protocol is for the split {rule.split}: choose that split")


def run(values: EvaluateValues, bench: "Bench") -> None:
    """The folder of the evaluation and its report; what is done there is not done again."""
    from t2i_tools.evaluation.manifest import settle
    from t2i_tools.evaluation.protocol import log_test_run
    from t2i_tools.evaluation.runner import run_shard

    folder = bench.output / "files" / folder_name(bench.job.owner, values.name)
    bench.result = {"name": values.name}
    protocol = keep_protocol(bench.output, values.protocol) if values.protocol else None
    rule = protocol_of(protocol, values.split, values.prompts)
    with bench.pipeline(Choice(values.model)) as (pipe, options):
        manifest, opened = _plan(values, bench, pipe, options, rule.split)
        settle(folder, manifest)
        if protocol and rule.split == "test":
            log_test_run(protocol, folder, manifest.digest())
        run_shard(folder, opened, on_batch=partial(_tell, bench, folder))
    finish(folder, protocol, None, show=False)
    files = [path for name in REPORT if (path := folder / name).exists()]
    bench.live.files = files
    bench.result["files"] = [bench.name(path) for path in files]


def keep_protocol(output: Path, rule: Rule) -> Path:
    """The file of a protocol: one for the same claim, so that its log has all its runs on the test split."""
    path = output / "protocols" / f"{digest(rule.model_dump())[:16]}.json"
    if not path.exists():
        with replacing(path) as part:
            part.write_text(json.dumps(rule.model_dump(), indent=1) + "\n", encoding="utf-8")
    return path


def folder_name(owner: str, name: str) -> str:
    """The name of an owner's evaluation's folder, which another user cannot guess."""
    return f"evaluation-{hashlib.sha256(owner.encode()).hexdigest()[:16]}-{re.sub(r'[^A-Za-z0-9_-]', '_', name)}"


def _plan(
    values: EvaluateValues, bench: "Bench", pipe: "DiffusionPipeline", options: "ModelOptions", split: str
) -> "tuple[Manifest, Models]":
    """The manifest, and what does the work: the pipeline that is open, judge and CLIP."""
    import torch

    from t2i_tools.evaluation.manifest import Settings
    from t2i_tools.evaluation.stages import Models

    items = values.items(options.model)
    labels = tuple(sorted({item.label for item in items if item.label}))
    clip = bench.shelf.clip_for(values.clip, Choice(values.model))
    models = Models(
        pipeline=lambda _: pipe,
        judge=partial(judge_on, values.judge, None, labels),
        clip=partial(clip_on, clip) if clip else None,
    )
    settings = Settings(batch=values.batch, threads=torch.get_num_threads())
    about = {"benchmark": "own prompts" if values.prompts else benchmark_name(options.model, None, None)}
    usual = (values.steps, values.guidance)
    return plan(items, settings, models, options, (values.judge, clip), usual, about | {"split": split})


def _tell(bench: "Bench", folder: Path, stage: str, done: int, total: int) -> None:
    bench.check()
    bench.live.tell(done, total, f"{STAGES[stage]} {done} of {total}")
    images = sorted(folder.glob("images/*.png"), key=lambda path: path.stat().st_mtime)
    bench.live.files = images[-SHOWN:]
