"""From the options of an evaluation to its manifest."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from t2i_tools.counting.methods import DEFAULT_BUDGET
from t2i_tools.errors import InputError
from t2i_tools.images.promptfile import LABELLED, read_prompts
from t2i_tools.images.sizes import parse_sizes
from t2i_tools.workflows.choices import SEARCHES, check_applies, one_of
from t2i_tools.workflows.detectors import COUNTER, JUDGES, SearchSettings, check_apart, check_labels
from t2i_tools.workflows.open_model import BUNDLED_FORMS, ModelOptions
from t2i_tools.workflows.plugins import own_scaling_note
from t2i_tools.workflows.settings import short_name, with_defaults

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.detectors import Counter
    from t2i_tools.evaluation.count_benchmark import Benchmark
    from t2i_tools.evaluation.reports.protocol import Protocol
    from t2i_tools.evaluation.runs.items import Item
    from t2i_tools.evaluation.runs.manifest import Manifest, Settings
    from t2i_tools.evaluation.runs.stages import Openers

logger = logging.getLogger("t2i_tools.workflows")
BATCH = 8
COUNTS = "2,3,4,5,7,10"
Opened = TypeVar("Opened")


def bundled_benchmark(split: str) -> "Benchmark":
    """The benchmark of the bundled model's twelve classes, in its own words."""
    from t2i_tools.bundled.scenes import COLOURS, DEV_LABELS, TEST_LABELS, plural
    from t2i_tools.evaluation.count_benchmark import Benchmark

    classes = {label: plural(label) for label in (DEV_LABELS if split == "dev" else TEST_LABELS)}
    colours = list(COLOURS)[split != "dev" :: 3]
    opening, joint = ("a photo of", "on") if split == "dev" else ("a picture of", "with")
    return Benchmark("counts-bundled", classes, ("", *(f"{joint} a {c} background" for c in colours)), opening)


def items_of(
    model: str, prompts: Path | None, split: str, counts: str, number: int | None, methods: str, sizes: str | None
) -> "list[Item]":
    """The prompts file's items, or those of the built-in benchmark. Raises InputError."""
    from t2i_tools.evaluation.count_benchmark import COCO, SPLITS, counts_rows
    from t2i_tools.evaluation.image_folders import read_geneval_prompts
    from t2i_tools.evaluation.runs.generators import GENERATORS
    from t2i_tools.evaluation.runs.items import make_items

    chosen = [one_of("method", name.strip(), (*GENERATORS, *SEARCHES)) for name in methods.split(",")]
    wanted_sizes = [None] if sizes is None else parse_sizes(sizes)
    if prompts:
        rows = read_geneval_prompts(prompts)
        rows = rows or [row for _, row in read_prompts(prompts, LABELLED, counted=True)]
        return make_items(rows, chosen, wanted_sizes)
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}: choose {' or '.join(SPLITS)}")
    try:
        wanted = [int(count) for count in counts.split(",")]
    except ValueError as error:
        raise InputError(f"--counts {counts!r} are not whole numbers with commas between") from error
    benchmark = bundled_benchmark(split) if model in BUNDLED_FORMS else COCO[split]
    return make_items(counts_rows(benchmark, split, wanted, number), chosen, wanted_sizes)


def search_settings(methods: Collection[str], counter: str | None, budget: float | None) -> SearchSettings | None:
    """Return the settings of the searches, or None if no method is a search.

    Raises InputError for an option that would have no effect.
    """
    for option, value in (("--counter", counter), ("--budget", budget)):
        if value is not None:
            check_applies(option, "--methods", methods, SEARCHES)
    return SearchSettings(counter, budget or DEFAULT_BUDGET) if set(methods) & set(SEARCHES) else None


def protocol_of(file: Path | None, split: str, own_prompts: Any) -> "Protocol":
    """The protocol of the file, which the test split must have. Raises InputError."""
    from t2i_tools.evaluation.reports.protocol import Protocol, read_protocol

    if file is None:
        if split == "test":
            raise InputError("--split test needs --protocol FILE: write down what is claimed before it is tested")
        return Protocol(split=split)
    rule = read_protocol(file)
    if rule.split != split and not own_prompts:
        raise InputError(f"{file} is for the split {rule.split}: add --split {rule.split}")
    return rule


def default_judge(model: str, images: Path | None) -> str:
    """The judge where none is named. Raises InputError where there is no such thing."""
    if model in BUNDLED_FORMS and not images:
        return JUDGES[0]
    raise InputError(f"--judge is needed: which detector is to count, a Hub id, a file, or {' or '.join(JUDGES)}")


def benchmark_name(model: str, prompts: Path | None, images: Path | None) -> str:
    """What the report calls the prompts."""
    if source := prompts or images:
        return source.resolve().name
    return "counts-bundled" if model in BUNDLED_FORMS else "counts-coco"


def settings_of(output: Path, batch: int | None, threads: int | None) -> "Settings":
    """What is not given is as the folder has it, so that a run goes on wherever it is.

    A new one has one thread per worker, whatever the machine: so workers, shards and machines give the same bytes.
    """
    from t2i_tools.evaluation.runs.manifest import FILE, Settings, read_manifest

    if (output / FILE).exists():
        there = read_manifest(output).settings
        return replace(there, batch=batch or there.batch, threads=threads or there.threads)
    return Settings(batch=batch or BATCH, threads=threads or 1)


def plan(
    items: "Sequence[Item]",
    settings: "Settings",
    openers: "Openers",
    chosen: ModelOptions,
    names: tuple[str, str | None],
    usual: tuple[int | None, float | None],
    about: Mapping[str, Any],
    search: SearchSettings | None = None,
) -> "tuple[Manifest, Openers]":
    """The manifest, and the models as this process has opened them.

    names: of the judge and the CLIP. usual: steps and guidance of the items that have none, the model's own where None.
    search: counter and budget of the searches. Raises InputError if the counter is the same detector as the judge.
    """
    from t2i_tools.evaluation.runs.fingerprint import detector_fingerprint, pipeline_fingerprint, weights_fingerprint
    from t2i_tools.evaluation.runs.manifest import Manifest
    from t2i_tools.models.anatomy import denoiser
    from t2i_tools.models.loading import pick_device

    judge, clip = openers.judge(None), openers.clip(None) if openers.clip else None
    labels = sorted({item.label for item in items if item.label})
    check_labels(judge, labels, names[0], some=True)
    opened = replace(openers, judge=lambda _: judge, clip=_always(clip) if clip else None)
    parts: dict[str, Any] = {"judge": {"name": short_name(names[0]), "fingerprint": detector_fingerprint(judge)}}
    if clip:
        parts["clip"] = {"name": short_name(names[1] or ""), "fingerprint": weights_fingerprint(clip.model)}
    if search and openers.counter:
        counter = openers.counter(None)
        parts["search"] = _search_entry(items, counter, judge, search)
        opened = replace(opened, counter=_always(counter))
    if openers.pipeline is None or all(item.image for item in items):
        return Manifest(list(items), settings, about=about, **parts), opened
    pipe = openers.pipeline(None)
    if any(item.method.startswith("entropy") for item in items):
        for line in own_scaling_note(pipe):
            logger.warning(line)
    model: Any = denoiser(pipe)
    device = pick_device(chosen.device) if chosen.offload else model.device
    settings = replace(settings, device=device.type, dtype=str(model.dtype).removeprefix("torch."))
    parts["model"] = {"name": short_name(chosen.model), "fingerprint": pipeline_fingerprint(pipe)}
    if chosen.vae_tiling:
        parts["model"]["vae_tiling"] = "on"
    manifest = Manifest(_with_usual(items, usual, pipe, chosen.model), settings, about=about, **parts)
    return manifest, replace(opened, pipeline=lambda _: pipe)


def _search_entry(
    items: "Sequence[Item]", counter: "Counter", judge: "Counter", search: SearchSettings
) -> dict[str, Any]:
    """The manifest's entry for searches. Raises InputError if the counter is the judge or no search is possible."""
    from t2i_tools.evaluation.runs.fingerprint import detector_fingerprint
    from t2i_tools.evaluation.runs.searching import search_problem

    check_apart(counter, judge)
    name, searched = search.counter or COUNTER, [item for item in items if item.is_search]
    problems = [problem for item in searched if (problem := search_problem(item))]
    if len(problems) == len(searched):
        raise InputError(problems[0])
    if problems:
        logger.warning("%d of %d searches cannot be made: %s", len(problems), len(searched), problems[0])
    labels = sorted({item.label for item in searched if item.label})
    check_labels(counter, labels, name, some=True, option="--counter")
    return {"name": short_name(name), "fingerprint": detector_fingerprint(counter), "budget": float(search.budget)}


def _always(value: Opened) -> "Callable[[Any], Opened]":
    """An opener of what is open."""
    return lambda _: value


def _with_usual(
    items: "Sequence[Item]", usual: tuple[int | None, float | None], pipe: "DiffusionPipeline", model: str
) -> "list[Item]":
    from t2i_tools.images.generate import Request, check_request

    request = with_defaults(Request("any", 0, steps=usual[0], guidance=usual[1]), pipe, model)
    check_request(pipe, request)
    return [
        replace(
            item,
            steps=request.steps if item.steps is None else item.steps,
            guidance=request.guidance if item.guidance is None else item.guidance,
        )
        for item in items
    ]


def parse_shard(text: str) -> tuple[int, int]:
    """ "1/2" as (0, 2). Raises InputError."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise InputError(f"shard {text!r} is not I/N with I from 1 to N, for instance 1/2")
    return int(part) - 1, int(parts)


def write_results(folder: Path, protocol: Path | None = None, geneval: Path | None = None) -> str:
    """Write the rows and the report of whatever is done, and GenEval's layout if asked; returns the report's table."""
    from t2i_tools.evaluation.image_folders import write_geneval
    from t2i_tools.evaluation.reports.report import write_report
    from t2i_tools.evaluation.runs.store import Store

    rows = Store(folder).write_merged()
    if geneval:
        write_geneval(rows, folder, geneval)
    return write_report(folder, rows, protocol)
