"""`t2i evaluate`: make images of many prompts, judge them, and report; a stopped run goes on."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from t2i_tools.cli import options
from t2i_tools.cli.commands import Group, Verb
from t2i_tools.cli.running import Work, check_engine
from t2i_tools.counting.methods import DEFAULT_BUDGET
from t2i_tools.errors import InputError
from t2i_tools.workflows.choices import ENGINES, GENERATORS, SEARCHES, SPLITS
from t2i_tools.workflows.detectors import openers_of
from t2i_tools.workflows.evaluation_plan import (
    BATCH,
    COUNTS,
    benchmark_name,
    default_judge,
    items_of,
    parse_shard,
    plan,
    protocol_of,
    search_settings,
    settings_of,
    write_results,
)
from t2i_tools.workflows.open_model import BUNDLED, BUNDLED_FORMS, ModelOptions
from t2i_tools.workflows.outputs import check_folder

Protocol = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="protocol.json: the primary figure, its unit, margin and baseline."),
]
Geneval = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Also copy the images into GenEval's layout.")]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="A new folder, or that of a run that is to go on.")
]
PromptsFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help=".csv or .jsonl with columns prompt, class and count; a built-in benchmark by default."
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Judge these images and make none: a folder with metadata.csv or --label, GenEval's layout, or another "
        "evaluation's folder.",
    ),
]
Label = Annotated[
    str | None, typer.Option(metavar="CLASS", help="The class to count in --images without a metadata.csv.")
]
Count = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="How many of --label there should be in each of --images.")
]
Split = Annotated[
    str, options.choice("split", SPLITS, help="Which part of the built-in benchmark; test needs --protocol.")
]
Counts = Annotated[
    str | None, typer.Option(metavar="N,N...", help=f"Counts of the built-in benchmark; {COUNTS} by default.")
]
MaxPrompts = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Use at most this many prompts of the built-in benchmark.")
]
Methods = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,NAME...",
        help=f"Ways to make the images: {', '.join((*GENERATORS, *SEARCHES))}; plain by default.",
    ),
]
Budget = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        min=1,
        help=f"Most compute per image for {' and '.join(SEARCHES)}, in plain images' worth; {DEFAULT_BUDGET:g} by "
        "default.",
        rich_help_panel=options.SEARCH,
    ),
]
Batch = Annotated[int | None, typer.Option(metavar="N", min=1, help=f"Images at once; {BATCH} by default.")]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help="Threads per worker; 1 by default. All workers and shards need the same number."
    ),
]
Workers = Annotated[int, typer.Option(metavar="N", min=1, help="Processes on this machine, or Ray's actors.")]
Engine = Annotated[
    str,
    options.choice(
        "engine",
        ENGINES,
        help="How work is shared; accelerate is for `accelerate launch -m t2i_tools evaluate counts ...`.",
    ),
]
Shard = Annotated[
    str, typer.Option(metavar="I/N", help="Do part I of N only; `t2i evaluate merge` puts the parts together.")
]
StopAfter = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Stop after the first N images, in whole batches.")
]
RetryErrors = Annotated[bool, options.flag("--retry-errors", "Try the images again that failed before.")]
evaluate = typer.Typer(
    cls=Group, help="Make images of many prompts, judge them and write a report. A stopped run goes on where it was."
)


@evaluate.command(cls=Verb)
@options.with_options(ModelOptions)
def counts(
    output: Output,
    prompts: PromptsFile = None,
    images: Images = None,
    label: Label = None,
    count: Count = None,
    split: Split = "dev",
    counts: Counts = None,
    max_prompts: MaxPrompts = None,
    methods: Methods = None,
    counter: options.CounterName = None,
    budget: Budget = None,
    negative: options.Negative = None,
    sizes: options.Sizes = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    judge: options.Judge = None,
    threshold: options.Threshold = None,
    clip: options.Clip = None,
    protocol: Protocol = None,
    batch: Batch = None,
    threads: Threads = None,
    workers: Workers = 1,
    engine: Engine = "local",
    shard: Shard = "1/1",
    stop_after: StopAfter = None,
    retry_errors: RetryErrors = False,
    geneval: Geneval = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    **option_values: Any,
) -> None:
    """Measure how often an image shows exactly as many objects as its prompt asks for."""
    from t2i_tools.evaluation.image_folders import read_images
    from t2i_tools.evaluation.runs.manifest import FILE, settle

    part = parse_shard(shard)
    check_engine(engine, workers, part)
    check_folder(output, (FILE,))
    if prompts and images:
        raise InputError("give either --prompts or --images")
    if not images and (label, count) != (None, None):
        raise InputError("--label and --count go with --images; a prompts file has columns class and count")
    if (prompts or images) and (counts, max_prompts) != (None, None):
        raise InputError("--counts and --max-prompts go with the built-in benchmark: leave them out")
    if images and any((methods, counter, budget, negative, sizes, steps, guidance)):
        raise InputError("--images are judged as they are: leave out what says how to make images")
    chosen, rank = options.pick(ModelOptions, option_values), 0
    if engine == "accelerate":
        from t2i_tools.evaluation.runs.engines import accelerate_rank

        rank, own = accelerate_rank()
        chosen = replace(chosen, device=chosen.device or own)
    rule = protocol_of(protocol, split, prompts or images)
    if images:
        items = read_images(images, label, count)
    else:
        items = items_of(chosen.model, prompts, split, counts or COUNTS, max_prompts, methods or "plain", sizes)
        items = [replace(item, negative=item.negative or negative) for item in items]
    labels = sorted({item.label for item in items if item.label})
    if not labels:
        raise InputError("no prompt has a class to count: give the prompts file columns class and count")
    rule.baseline_of([item.method for item in items])  # complains now, not after hours
    judge = judge or default_judge(chosen.model, images)
    ours = chosen.model in BUNDLED_FORMS and not images
    clip = None if clip == "none" else clip or (BUNDLED if ours else None)
    search = search_settings(list(dict.fromkeys(item.method for item in items if not item.image)), counter, budget)
    openers = openers_of(chosen, judge, threshold, labels, clip, search)
    about = {"benchmark": benchmark_name(chosen.model, prompts, images), "split": rule.split}
    settings = settings_of(output, batch, threads)
    manifest, opened = plan(items, settings, openers, chosen, (judge, clip), (steps, guidance), about, search)
    settle(output, manifest)
    if protocol and rule.split == "test" and rank == 0:
        from t2i_tools.evaluation.reports.protocol import log_test_run

        log_test_run(protocol, output, manifest.digest())
    work = Work(output, part, stop_after, retry_errors, show=not (quiet or as_json))
    if not work.run(engine, workers, openers, opened):
        return
    if part != (0, 1):
        print(f"shard {shard} is done: put the folders together with `t2i evaluate merge`", file=sys.stderr)
        work.leave()
    _print_results(output, protocol, geneval, quiet, as_json)
    work.leave()


@evaluate.command(cls=Verb)
def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="The shards' folders.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="The folder of the whole evaluation.")
    ],
    protocol: Protocol = None,
    geneval: Geneval = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Put the folders of several shards together and write the report."""
    from t2i_tools.evaluation.runs.merging import merge as merge_folders

    if missing := merge_folders(folders, output):
        print(f"t2i: items in none of these folders: {missing}; merge again when they are done", file=sys.stderr)
    _print_results(output, protocol, geneval, quiet, as_json)
    Work(output, is_part=True).leave()


@evaluate.command(cls=Verb)
def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of an evaluation.", show_default=False)],
    protocol: Protocol = None,
    geneval: Geneval = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the report of an evaluation again, from the images that are done."""
    _print_results(folder, protocol, geneval, quiet, as_json)


def _print_results(folder: Path, protocol: Path | None, geneval: Path | None, quiet: bool, as_json: bool) -> None:
    table = write_results(folder, protocol, geneval)
    if as_json:
        print((folder / "report.json").read_text(encoding="utf-8"), end="")
    elif not quiet:
        print(f"{table}\n{folder / 'report.html'}")
