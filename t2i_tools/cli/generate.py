"""`t2i generate`: prompts in, PNG files with their settings out."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t2i_tools.cli import options
from t2i_tools.cli.jobs import Job, read_jobs
from t2i_tools.cli.tokens import print_notes, print_vocabulary_note
from t2i_tools.images.generate import check_request
from t2i_tools.images.sizes import parse_size
from t2i_tools.workflows.open_model import ModelOptions, open_model
from t2i_tools.workflows.outputs import next_file, parse_output
from t2i_tools.workflows.plugins import PluginOptions, own_scaling_note, with_plugins
from t2i_tools.workflows.progress import step_progress
from t2i_tools.workflows.settings import image_settings, with_defaults

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@options.with_options(ModelOptions, PluginOptions)
def generate(
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="What to draw; in quotes.", show_default=False)
    ] = None,
    prompts: options.PromptsFile = None,
    wildcards: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The folder of color.txt: __color__ in a prompt becomes one of its lines, drawn by the seed. "
            "{red|blue} needs no folder.",
        ),
    ] = None,
    negative: options.Negative = None,
    size: options.ImageSize = None,
    fit: options.Fit = "crop",
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    seed: options.Seed = None,
    number: options.Number = 1,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            help="A .png, .webp or .jpg file, which is overwritten, or a folder, in which files are numbered on.",
        ),
    ] = "outputs",
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    **option_values: Any,
) -> None:
    """Generate images from a prompt, or from each row of a prompts file."""
    asked: dict[str, Any] = {"negative": negative, "fit": fit, "size": parse_size(size) if size else None}
    asked |= {"steps": steps, "guidance": guidance, "seed": seed, "number": number}
    chosen, plugins = options.pick(ModelOptions, option_values), options.pick_values(PluginOptions, option_values)
    jobs, chosen = read_jobs(prompt, prompts, asked, chosen, plugins, wildcards)
    target = parse_output(output, len(jobs))
    for job in jobs:
        with job.errors():
            job.plugins.worded(job.request)  # complains before the model is opened
    pipe = open_model(chosen)
    from t2i_tools.workflows.reading_notes import without_warnings

    if not quiet:
        print_vocabulary_note(chosen.model, [job.request.prompt for job in jobs])
        print_notes(notes_of(pipe, jobs))
    made: list[dict[str, Any]] = []
    try:
        with without_warnings():
            for file, settings in make_images(pipe, chosen, jobs, target, show=not quiet):
                made.append({"file": str(file), **settings})
                if not (as_json or quiet):
                    print(file, flush=True)
    finally:  # also after Ctrl-C: what is finished stays, and is listed
        if as_json and made:
            print(json.dumps(made, indent=2))


def notes_of(pipe: "DiffusionPipeline", jobs: list[Job]) -> list[str]:
    """What of their prompts and negative prompts is not read or does not act."""
    from t2i_tools.workflows.reading_notes import all_notes, place_note

    texts = []
    for job in jobs:
        texts.append((job.request.prompt, job.plugins.long_prompts, "prompt"))
        if job.request.negative:
            texts.append((job.request.negative, job.plugins.long_prompts, "negative prompt"))
    unfilled = {line for job in jobs if not job.plugins.count_token for line in place_note(job.request.prompt)}
    unused = {line for job in jobs for line in job.plugins.unused_words(job.request)}
    idle = set.intersection(*(set(job.plugins.idle_at(pipe, job.request.size)) for job in jobs))
    replaced = set(own_scaling_note(pipe)) if any(job.plugins.entropy_scaling for job in jobs) else set()
    return [*sorted(unfilled | unused | idle | replaced), *all_notes(pipe, texts)]


def make_images(
    pipe: "DiffusionPipeline",
    chosen: ModelOptions,
    jobs: list[Job],
    target: Path,
    show: bool,
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Make and save one image after the other; yields (file, its settings) as soon as the file is complete."""
    from t2i_tools.images.metadata import save_image

    jobs = [replace(job, request=with_defaults(job.request, pipe, chosen.model)) for job in jobs]
    for job in jobs:
        with job.errors(), scheduler_of(pipe, job):
            check_request(pipe, job.request)
    with step_progress(len(jobs), show) as on_step:
        for index, job in enumerate(jobs):
            request = job.request
            with scheduler_of(pipe, job):
                image, acted = with_plugins(pipe, job.plugins, request, partial(on_step, index))
                settings = {**image_settings(pipe, chosen, request), **job.recorded, **acted}
            settings |= {"width": image.width, "height": image.height}
            file = next_file(target, request.prompt, request.seed)
            save_image(image, file, settings)
            yield file, settings


@contextmanager
def scheduler_of(pipe: "DiffusionPipeline", job: Job) -> Iterator[None]:
    """While it lasts, the pipeline has the job's own scheduler, made from that which it had. Raises InputError."""
    from t2i_tools.models.parts import use_scheduler

    usual = pipe.scheduler
    try:
        if job.scheduler:
            use_scheduler(pipe, job.scheduler)
        yield
    finally:
        pipe.scheduler = usual
