"""From the options of `t2i evaluate` to its manifest."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i_tools.cli import options
from t2i_tools.cli.judges import JUDGES, check_labels
from t2i_tools.errors import InputError
from t2i_tools.promptfile import LABELLED, read_prompts
from t2i_tools.sizes import parse_size

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.evaluation.counts import Benchmark
    from t2i_tools.evaluation.items import Item
    from t2i_tools.evaluation.manifest import Manifest, Settings
    from t2i_tools.evaluation.protocol import Protocol
    from t2i_tools.evaluation.stages import Models

BATCH = 8


def bundled_benchmark(split: str) -> "Benchmark":
    """The benchmark of the bundled model's twelve classes, in its own words."""
    from t2i_tools.default.scenes import COLOURS, DEV_LABELS, TEST_LABELS, plural
    from t2i_tools.evaluation.counts import Benchmark

    classes = {label: plural(label) for label in (DEV_LABELS if split == "dev" else TEST_LABELS)}
    colours = list(COLOURS)[split != "dev" :: 3]
    opening, joint = ("a photo of", "on") if split == "dev" else ("a picture of", "with")
    return Benchmark("counts-bundled", classes, ("", *(f"{joint} a {c} background" for c in colours)), opening)


def items_of(
    model: str, prompts: Path | None, split: str, counts: str, number: int | None, method: str, size: str | None
) -> "list[Item]":
    """The prompts file's items, or those of the built-in benchmark. Raises InputError."""
    from t2i_tools.evaluation.counts import COCO, SPLITS, counts_rows
    from t2i_tools.evaluation.items import make_items
    from t2i_tools.evaluation.methods import METHODS

    methods = [name.strip() for name in method.split(",")]
    if unknown := [name for name in methods if name not in METHODS]:
        raise InputError(f"unknown method {unknown[0]!r}: choose {', '.join(METHODS)}")
    sizes = [parse_size(one) for one in size.split(",")] if size else [None]
    if prompts:
        return make_items([row for _, row in read_prompts(prompts, LABELLED)], methods, sizes)
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}: choose {' or '.join(SPLITS)}")
    try:
        wanted = [int(count) for count in counts.split(",")]
    except ValueError as error:
        raise InputError(f"--counts {counts!r} are not whole numbers with commas between") from error
    benchmark = bundled_benchmark(split) if model == options.BUNDLED else COCO[split]
    return make_items(counts_rows(benchmark, split, wanted, number), methods, sizes)


def protocol_of(file: Path | None, split: str, own_prompts: Any) -> "Protocol":
    """The protocol of the file, which the test split must have. Raises InputError."""
    from t2i_tools.evaluation.protocol import Protocol, read_protocol

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
    if model == options.BUNDLED and not images:
        return JUDGES[0]
    raise InputError(f"--judge is needed: which detector is to count, a Hub id, a file, or {' or '.join(JUDGES)}")


def benchmark_name(model: str, prompts: Path | None, images: Path | None) -> str:
    """What the report calls the prompts."""
    if prompts or images:
        return Path(prompts or images).name
    return "counts-bundled" if model == options.BUNDLED else "counts-coco"


def settings_of(output: Path, batch: int | None, threads: int | None, workers: int) -> "Settings":
    """What is not given is as the folder has it, so that a run goes on wherever it is."""
    from t2i_tools.evaluation.manifest import FILE, Settings, read_manifest

    if (output / FILE).exists():
        there = read_manifest(output).settings
        return replace(there, batch=batch or there.batch, threads=threads or there.threads)
    return Settings(batch=batch or BATCH, threads=threads or max(1, _cores() // workers))


def plan(
    items: "Sequence[Item]",
    settings: "Settings",
    models: "Models",
    chosen: options.ModelOptions,
    names: tuple[str, str | None],
    usual: tuple[int | None, float | None],
    about: Mapping[str, Any],
) -> "tuple[Manifest, Models]":
    """The manifest, and the models as this process has opened them.

    names: of the judge and the CLIP. usual: steps and guidance of the items that have none, the model's own where None.
    """
    from t2i_tools.evaluation.fingerprint import detector_fingerprint, pipeline_fingerprint, weights_fingerprint
    from t2i_tools.evaluation.manifest import Manifest
    from t2i_tools.loading import pick_device
    from t2i_tools.models import denoiser

    judge, clip = models.judge(None), models.clip and models.clip(None)
    check_labels(judge, sorted({item.label for item in items if item.label}), names[0])
    opened = replace(models, judge=lambda _: judge, clip=models.clip and (lambda _: clip))
    parts = {"judge": {"name": _name(names[0]), "fingerprint": detector_fingerprint(judge)}}
    if clip:
        parts["clip"] = {"name": _name(names[1]), "fingerprint": weights_fingerprint(clip[0])}
    if all(item.picture for item in items):
        return Manifest(list(items), settings, about=about, **parts), opened
    pipe = models.pipeline(None)
    device = pick_device(chosen.device) if chosen.offload else denoiser(pipe).device
    settings = replace(settings, device=device.type, dtype=str(denoiser(pipe).dtype).removeprefix("torch."))
    parts["model"] = {"name": _name(chosen.model), "fingerprint": pipeline_fingerprint(pipe)}
    if chosen.vae_tiling:
        parts["model"]["vae_tiling"] = "on"
    manifest = Manifest(_with_usual(items, usual, pipe, chosen.model), settings, about=about, **parts)
    return manifest, replace(opened, pipeline=lambda _: pipe)


def _with_usual(
    items: "Sequence[Item]", usual: tuple[int | None, float | None], pipe: "DiffusionPipeline", model: str
) -> "list[Item]":
    from t2i_tools.cli.generate import with_defaults
    from t2i_tools.generation import Request, check_request

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


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _name(source: str) -> str:
    return Path(source).stem if Path(source).expanduser().exists() else source
