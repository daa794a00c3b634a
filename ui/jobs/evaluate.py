"""How often the count asked for is the count in the image: a batch with a report, that goes on where it was stopped."""

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from t2i_tools.counting.methods import DEFAULT_BUDGET
from t2i_tools.errors import InputError
from t2i_tools.evaluation.reports.protocol import Protocol, parse_protocol
from t2i_tools.evaluation.rows_io import read_rows
from t2i_tools.evaluation.runs.generators import GENERATORS
from t2i_tools.evaluation.runs.items import SEARCHES, Item, digest, make_items
from t2i_tools.files import replacing
from t2i_tools.images.generate import Request
from t2i_tools.images.sizes import parse_size
from t2i_tools.workflows.choices import check_applies
from t2i_tools.workflows.detectors import COUNTER, JUDGES, SAME_DETECTOR, SearchSettings, clip_on, counter_on, judge_on
from t2i_tools.workflows.evaluation_plan import benchmark_name, items_of, plan, protocol_of, write_results
from t2i_tools.workflows.open_model import BUNDLED

from ..errors import FieldError, at_field
from ..options import AppOptions
from ..registry import Choice, Registry, look_up
from ..secret import keyed, read_secret
from ..values import Guidance, JobValues, Name, Prompt, Seed, Steps, Values, check_at_most, check_size

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.evaluation.runs.manifest import Manifest
    from t2i_tools.evaluation.runs.stages import Openers
    from t2i_tools.workflows.open_model import ModelOptions

    from ..job_context import JobContext

REPORT = ("report.html", "report.csv", "report.md", "rows.jsonl")
SHOWN = 12
MOST_ROWS, MOST_CHOICES = 10_000, 32
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


class EvaluateValues(JobValues):
    """A batch of counts with its report. prompts: rows of prompt, label, count, or the built-in benchmark's counts and
    number. methods and sizes: each prompt is made with all. split: "test" needs a protocol, which logs its runs. clip:
    scores every image, or "none". detector and budget: the counter of the search methods, and the most that each
    of their images may cost, in plain images' worth. name: an evaluation with the same name and values is resumed.
    """

    prompts: Annotated[list[Row], Field(max_length=MOST_ROWS)] = []
    counts: Name = "2,3,4,5,7,10"
    number: Annotated[int, Field(ge=1)] | None = 24
    split: Literal["dev", "test"] = "dev"
    protocol: Rule | None = None
    methods: Annotated[list[Name], Field(max_length=MOST_CHOICES)] = ["plain"]
    sizes: Annotated[list[Name], Field(max_length=MOST_CHOICES)] = []
    steps: Steps | None = None
    guidance: Guidance | None = None
    judge: Name = JUDGES[0]
    clip: Name | None = None
    detector: Name | None = None
    budget: Annotated[int, Field(ge=1)] | None = None
    batch: Annotated[int, Field(ge=1, le=64)] = 8
    model: Name = ""
    name: Annotated[str, Field(pattern=r"^[\w-]{1,60}$")] | None = None

    def planned(self) -> list[Request]:
        """One per item."""
        return [item.request() for item in self.items(self.model or BUNDLED)]

    def most_costs(self) -> list[int]:
        """The budget for a search, else 1."""
        most = self.budget or int(DEFAULT_BUDGET)
        return [most if item.is_search else 1 for item in self.items(self.model or BUNDLED)]

    def search(self) -> SearchSettings | None:
        """The settings of the searches, or None if no method is a search.

        Raises InputError for a field that would have no effect.
        """
        for name in ("detector", "budget"):
            if getattr(self, name) is not None:
                with at_field(name):
                    check_applies(name, "methods", self.methods, SEARCHES)
        if not set(self.methods) & set(SEARCHES):
            return None
        return SearchSettings(self.detector or COUNTER, float(self.budget or DEFAULT_BUDGET))

    def items(self, model: str) -> list[Item]:
        """What is to be made. Raises InputError."""
        size = ",".join(self.sizes) or None
        if not self.prompts:
            return items_of(model, None, self.split, self.counts, self.number, ",".join(self.methods), size)
        rows = [row.model_dump(exclude_none=True) for row in self.prompts]
        return make_items(rows, self.methods, [parse_size(text) for text in self.sizes] or [None])

    def validated(self, options: AppOptions, registry: Registry) -> "EvaluateValues":
        """With a name, and checked as far as that goes without the model."""
        rows = len(self.prompts) or self.number or 0
        most = options.limits.items
        with at_field("number"):
            check_at_most("images", rows * len(self.methods) * max(1, len(self.sizes)), most)  # before they are made
        if not self.methods:
            raise FieldError("methods", "there is no method to evaluate: choose at least one")
        known = (*GENERATORS, *SEARCHES)
        if unknown := [method for method in self.methods if method not in known]:
            raise FieldError("methods", f"unknown method {unknown[0]!r}: choose {', '.join(known)}")
        with at_field("sizes"):
            for size in self.sizes:
                check_size(size, options.limits)
        check_at_most("steps", self.steps, options.limits.steps)
        look_up(self.judge, registry.judges(), "judge")
        if search := self.search():
            look_up(search.counter or COUNTER, registry.detectors(), "detector")
            if search.counter == self.judge:
                raise FieldError("detector", SAME_DETECTOR)
            check_at_most("budget", int(search.budget), options.limits.budget)
        registry.clip_for(self.clip, Choice(self.model))
        with at_field("protocol"):
            self._check_protocol()
        model = registry.options(Choice(self.model)).model
        with at_field("prompts" if self.prompts else "counts"):
            items = self.items(model)
        with at_field("number"):
            check_at_most("images", len(items), options.limits.items)
        with at_field("budget"):
            check_at_most("images that may be drawn", sum(self.most_costs()), options.limits.items)
        for item in items:
            item.request()
        if self.protocol:
            self.protocol.read().baseline_of(self.methods)
        return self.model_copy(update={"name": self.usual_name()})

    def usual_name(self) -> str:
        """Its name, or one drawn from its values."""
        unset = {name for name in ("detector", "budget") if getattr(self, name) is None}
        return self.name or f"counts-{digest(self.model_dump(exclude=unset))[:8]}"  # so that older names stay the same

    def _check_protocol(self) -> None:
        """Raise InputError unless what is claimed was written down, and for this split."""
        if self.protocol is None:
            if self.split == "test":
                raise InputError("the test split needs a protocol: write down what is claimed before it is tested")
            return
        rule = self.protocol.read()
        if rule.split != self.split and not self.prompts:
            raise InputError(f"this protocol is for the split {rule.split}: choose that split")


def run(values: EvaluateValues, context: "JobContext") -> None:
    """The folder of the evaluation and its report; what is done there is not done again."""
    from t2i_tools.evaluation.reports.protocol import log_test_run
    from t2i_tools.evaluation.runs.manifest import settle
    from t2i_tools.evaluation.runs.runner import run_shard

    name, secret = values.usual_name(), read_secret(context.output / ".secret")
    folder = context.output / "files" / folder_name(secret, context.job.owner, name)
    context.result = {"name": name}
    context.is_fresh = not folder.exists()  # else its time says nothing of the images, of which some are there
    protocol = keep_protocol(context.output, values.protocol) if values.protocol else None
    rule = protocol_of(protocol, values.split, values.prompts)
    with context.pipeline(Choice(values.model)) as (pipe, options):
        manifest, opened = _plan(values, context, pipe, options, rule.split)
        settle(folder, manifest)
        if protocol and rule.split == "test":
            log_test_run(protocol, folder, manifest.digest())
        try:
            run_shard(folder, opened, on_batch=partial(_report, context, folder))
        except KeyboardInterrupt:  # an interrupted search does not say why: cancelled, or out of time
            context.raise_cancelled()
    write_results(folder, protocol)
    context.image_costs = [row.get("spent", 1) for row in read_rows(folder / "rows.jsonl")]
    context.is_fresh &= len(context.image_costs) == len(values.planned())  # else it was planned for another benchmark
    files = [path for name in REPORT if (path := folder / name).exists()]
    context.progress.files = files
    context.result["files"] = [context.name(path) for path in files]
    context.result |= headline(json.loads((folder / "report.json").read_text(encoding="utf-8")))


def headline(report: Mapping[str, Any]) -> dict[str, Any]:
    """The shares of exact counts of a report, and how they compare: what one wants to know first."""
    exact = [
        {"name": group["name"], "images": group["ok"], **group["figures"]["exact"]}
        for group in report["groups"]
        if "exact" in group["figures"]
    ]
    compared = [
        {name: one[name] for name in ("group", "baseline", "difference")}
        for one in report["comparisons"]
        if one["figure"] == "exact"
    ]
    return {"exact": exact, "compared": compared}


def keep_protocol(output: Path, rule: Rule) -> Path:
    """The file of a protocol: one for the same claim, so that its log has all its runs on the test split."""
    path = output / "protocols" / f"{digest(rule.model_dump())[:16]}.json"
    if not path.exists():
        with replacing(path) as part:
            part.write_text(json.dumps(rule.model_dump(), indent=1) + "\n", encoding="utf-8")
    return path


def folder_name(secret: bytes, owner: str, name: str) -> str:
    """The name of an owner's evaluation's folder, which nobody can guess who does not know the server's secret."""
    return f"evaluation-{keyed(secret, f'{owner} {name}')}-{re.sub(r'[^A-Za-z0-9_-]', '_', name)}"


def _plan(
    values: EvaluateValues, context: "JobContext", pipe: "DiffusionPipeline", options: "ModelOptions", split: str
) -> "tuple[Manifest, Openers]":
    """The manifest, and what does the work: the pipeline that is open, judge and CLIP."""
    import torch

    from t2i_tools.evaluation.runs.manifest import Settings
    from t2i_tools.evaluation.runs.stages import Openers

    items, search = values.items(options.model), values.search()
    labels = tuple(sorted({item.label for item in items if item.label}))
    clip = context.registry.clip_for(values.clip, Choice(values.model))
    openers = Openers(
        pipeline=lambda _: pipe,
        judge=partial(judge_on, values.judge, None, labels),
        clip=partial(clip_on, clip) if clip else None,
        counter=partial(counter_on, search.counter, options, labels) if search else None,
    )
    settings = Settings(batch=values.batch, threads=torch.get_num_threads())
    about = {"benchmark": "own prompts" if values.prompts else benchmark_name(options.model, None, None)}
    usual = (values.steps, values.guidance)
    return plan(items, settings, openers, options, (values.judge, clip), usual, about | {"split": split}, search)


def _report(context: "JobContext", folder: Path, stage: str, done: int, total: int) -> None:
    context.pause()
    context.progress.report(done, total, f"{STAGES[stage]} {done} of {total}")
    images = sorted(folder.glob("images/*.png"), key=lambda path: path.stat().st_mtime)
    context.progress.files = images[-SHOWN:]
