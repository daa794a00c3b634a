"""`t2i evaluate`: make images of many prompts, judge them, and report; stopped at any moment, it goes on."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from t2i_tools.cli import options
from t2i_tools.cli.judges import JUDGES, models_of
from t2i_tools.cli.outputs import check_place
from t2i_tools.cli.planning import BATCH, benchmark_name, default_judge, items_of, plan, protocol_of, settings_of
from t2i_tools.cli.running import Work, check_engine, finish
from t2i_tools.errors import InputError

Protocol = Annotated[
    Path | None, typer.Option(metavar="FILE", help="protocol.json: primary figure, unit, margin, baseline.")
]
Geneval = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Also copy the images into GenEval's layout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no table.")]
Output = Annotated[Path, typer.Option(metavar="FOLDER", help="A new folder, or one to go on with.")]
PromptsFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help=".txt, .csv or .jsonl with class and count; a built-in benchmark by default."),
]
Pictures = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Judge these pictures; also GenEval's layout, or another evaluation's folder."),
]
Label = Annotated[str | None, typer.Option(help="Class to count in --images, whose metadata.csv does not say it.")]
Count = Annotated[int | None, typer.Option(min=0, help="How often it is to be in each of them.")]
Split = Annotated[str, typer.Option(help="dev or test of the built-in benchmark; test needs --protocol.")]
Counts = Annotated[str, typer.Option(metavar="N,N...", help="Counts of the built-in benchmark.")]
Number = Annotated[int | None, typer.Option(help="So many prompts of the built-in benchmark, not all.")]
Method = Annotated[str, typer.Option(metavar="NAME,NAME...", help="Ways to make the images.")]
Size = Annotated[str | None, typer.Option(metavar="WxH,WxH...", help="Sizes; the model's own by default.")]
JudgeName = Annotated[
    str | None, typer.Option(metavar="|".join((*JUDGES, "FOLDER|FILE|HUB_ID")), help="The detector that counts.")
]
Threshold = Annotated[float | None, typer.Option(min=0, max=1, help="Least score of an object.")]
ClipName = Annotated[
    str | None, typer.Option(metavar="bundled|FOLDER|HUB_ID|none", help="The CLIP that scores images.")
]
Batch = Annotated[int | None, typer.Option(min=1, help=f"Images at once; {BATCH} by default.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Of each worker.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes on this machine, or Ray's actors.")]
Engine = Annotated[
    str, typer.Option(help="local, ray, or accelerate for `accelerate launch -m t2i_tools evaluate counts ...`.")
]
Shard = Annotated[str, typer.Option(metavar="I/N", help="Do part I of N only, then `t2i evaluate merge`.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first so many items, in whole batches.")]
RetryErrors = Annotated[bool, typer.Option("--retry-errors", help="Do failed batches again.")]
evaluate = typer.Typer(help="Make images of many prompts, judge and report them; a run that stopped goes on.")


@evaluate.command()
@options.with_options(options.ModelOptions)
def counts(
    output: Output,
    prompts: PromptsFile = None,
    images: Pictures = None,
    label: Label = None,
    count: Count = None,
    split: Split = "dev",
    counts: Counts = "2,3,4,5,7,10",
    number: Number = None,
    method: Method = "plain",
    size: Size = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    judge: JudgeName = None,
    threshold: Threshold = None,
    clip: ClipName = None,
    protocol: Protocol = None,
    batch: Batch = None,
    threads: Threads = None,
    workers: Workers = 1,
    engine: Engine = "local",
    shard: Shard = "1/1",
    limit: Limit = None,
    retry_errors: RetryErrors = False,
    geneval: Geneval = None,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """How often the count asked for is the count in the image."""
    from t2i_tools.evaluation.manifest import settle
    from t2i_tools.evaluation.pictures import read_pictures

    part = parse_shard(shard)
    check_engine(engine, workers, part)
    check_place(output)
    if prompts and images:
        raise InputError("give either --prompts or --images")
    if not images and (label, count) != (None, None):
        raise InputError("--label and --count go with --images; of prompts, the file's columns class and count tell")
    chosen, rank = options.pick(options.ModelOptions, given), 0
    if engine == "accelerate":
        from t2i_tools.evaluation.engines import accelerate_rank

        rank, own = accelerate_rank()
        chosen = replace(chosen, device=chosen.device or own)
    rule = protocol_of(protocol, split, prompts or images)
    if images:
        items = read_pictures(images, label, count)
    else:
        items = items_of(chosen.model, prompts, split, counts, number, method, size)
    labels = sorted({item.label for item in items if item.label})
    if not labels:
        raise InputError("no prompt has a class to count: give the prompts file columns class and count")
    rule.baseline_of([item.method for item in items])  # complains now, not after hours
    judge = judge or default_judge(chosen.model, images)
    ours = chosen.model == options.BUNDLED and not images
    clip = None if clip == "none" else clip or (options.BUNDLED if ours else None)
    models = models_of(chosen, judge, threshold, labels, clip)
    about = {"benchmark": benchmark_name(chosen.model, prompts, images), "split": rule.split}
    settings = settings_of(output, batch, threads, workers)
    manifest, opened = plan(items, settings, models, chosen, (judge, clip), (steps, guidance), about)
    settle(output, manifest)
    if protocol and rule.split == "test" and rank == 0:
        from t2i_tools.evaluation.protocol import log_test_run

        log_test_run(protocol, output, manifest.digest())
    work = Work(output, part, limit, retry_errors, show=not quiet)
    if not work.run(engine, workers, models, opened):
        return
    if part != (0, 1):
        print(f"shard {shard} is done: put the folders together with `t2i evaluate merge`", file=sys.stderr)
        work.leave()
    finish(output, protocol, geneval, show=not quiet)
    work.leave()


@evaluate.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Of the shards.", show_default=False)],
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the whole goes.")],
    protocol: Protocol = None,
    geneval: Geneval = None,
    quiet: Quiet = False,
) -> None:
    """Put the folders of several shards together and report them."""
    from t2i_tools.evaluation.merging import merge as merge_folders

    if missing := merge_folders(folders, output):
        print(f"t2i: items in none of these folders: {missing}; merge again when they are done", file=sys.stderr)
    finish(output, protocol, geneval, show=not quiet)
    Work(output).leave()


@evaluate.command()
def report(
    folder: Annotated[Path, typer.Argument(show_default=False)],
    protocol: Protocol = None,
    geneval: Geneval = None,
    quiet: Quiet = False,
) -> None:
    """Write the report of an evaluation again, of whatever is done."""
    finish(folder, protocol, geneval, show=not quiet)


def parse_shard(text: str) -> tuple[int, int]:
    """ "1/2" as (0, 2). Raises InputError."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise InputError(f"shard {text!r} is not I/N with I from 1 to N, for instance 1/2")
    return int(part) - 1, int(parts)
