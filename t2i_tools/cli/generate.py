"""`t2i generate`: prompts in, PNG files with their settings out."""

import json
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t2i_tools import __version__
from t2i_tools.cli import options
from t2i_tools.cli.outputs import next_file, parse_output
from t2i_tools.cli.plugins import PluginOptions, with_plugins
from t2i_tools.cli.tokens import tell_of_cuts
from t2i_tools.errors import InputError
from t2i_tools.generation import Request, call_default, check_request
from t2i_tools.imagefile import save_image
from t2i_tools.models import denoiser
from t2i_tools.promptfile import read_prompts
from t2i_tools.sizes import FITS, parse_size

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@options.with_options(options.ModelOptions, PluginOptions)
def generate(
    prompt: Annotated[str | None, typer.Argument(help="What to draw.", show_default=False)] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=".txt (one prompt a line), .csv or .jsonl; columns size, seed, negative... go first."
        ),
    ] = None,
    negative: options.Negative = None,
    size: options.ImageSize = None,
    fit: Annotated[
        str, typer.Option(help="For a size the model cannot make: crop a larger image, or snap to the nearest size.")
    ] = "crop",
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    seed: options.FirstSeed = None,
    number: Annotated[int, typer.Option(help="Images per prompt.")] = 1,
    output: Annotated[
        str, typer.Option(metavar="FILE.png|FOLDER", help="A file is replaced; in a folder numbers go on.")
    ] = "outputs",
    as_json: options.AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no file names.")] = False,
    **given: Any,
) -> None:
    """Generate images from a prompt, or from every line of a file."""
    asked = {"negative": negative, "size": size, "steps": steps, "guidance": guidance, "seed": seed, "number": number}
    requests = read_requests(prompt, prompts, {**asked, "fit": fit})
    target = parse_output(output, len(requests))
    chosen, plugins = options.pick(options.ModelOptions, given), options.pick(PluginOptions, given)
    for request in requests:
        plugins.worded(request)  # complains before the model is opened
    pipe = options.open_model(chosen)
    if not (quiet or plugins.long_prompts):
        tell_of_cuts(pipe, [request.prompt for request in requests])
    made: list[dict[str, Any]] = []
    try:
        for file, settings in make_images(pipe, chosen, requests, target, plugins, show=not quiet):
            made.append({"file": str(file), **settings})
            if not (as_json or quiet):
                print(file, flush=True)
    finally:  # also after Ctrl-C: what is finished stays, and is told
        if as_json and made:
            print(json.dumps(made, indent=2))


def read_requests(prompt: str | None, file: Path | None, values: dict[str, Any]) -> list[Request]:
    """One request an image: the prompt's, or those of every row of the file, whose values go before `values`.

    Image i of a row has seed + i; without a seed all rows start at the same random one. Raises InputError.
    """
    if (prompt is None) == (file is None):
        raise InputError("give either a prompt or --prompts FILE")
    values = {name: value for name, value in values.items() if value is not None}
    if "size" in values:
        values["size"] = parse_size(values["size"])
    values.setdefault("seed", random.randrange(2**32))
    if file is None:
        return _numbered({**values, "prompt": prompt})
    requests = []
    for line, row in read_prompts(file):
        try:
            requests += _numbered({**values, **row})
        except InputError as error:
            raise InputError(f"{file} line {line}: {error}") from error
    return requests


def make_images(
    pipe: "DiffusionPipeline",
    chosen: options.ModelOptions,
    requests: list[Request],
    target: Path,
    plugins: PluginOptions,
    show: bool,
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Make and save one image after the other; yields (file, its settings) as soon as the file is complete."""
    requests = [with_defaults(request, pipe, chosen.model) for request in requests]
    for request in requests:
        check_request(pipe, request)
    with progress_bar(len(requests), show) as on_step:
        for index, request in enumerate(requests):
            image, acted = with_plugins(pipe, plugins, request, partial(on_step, index))
            settings = image_settings(pipe, chosen, request) | acted | {"width": image.width, "height": image.height}
            file = next_file(target, request.prompt, request.seed)
            save_image(image, file, settings)
            yield file, settings


def with_defaults(request: Request, pipe: "DiffusionPipeline", model: str) -> Request:
    """The request with the steps and guidance that the pipeline would take by itself, so that the file can tell."""
    if model == options.BUNDLED:
        from t2i_tools.default import DEFAULT_GUIDANCE, DEFAULT_STEPS

        steps, guidance = DEFAULT_STEPS, DEFAULT_GUIDANCE
    else:
        steps, guidance = call_default(pipe, "num_inference_steps"), call_default(pipe, "guidance_scale")
    return replace(
        request,
        steps=steps if request.steps is None else request.steps,
        guidance=guidance if request.guidance is None else request.guidance,
    )


def image_settings(pipe: "DiffusionPipeline", chosen: options.ModelOptions, request: Request) -> dict[str, Any]:
    """What it takes to make the image again, for the file and for --json."""
    import diffusers
    import torch

    settings = {
        "prompt": request.prompt,
        "negative": request.negative,
        "seed": request.seed,
        "steps": request.steps,
        "guidance": request.guidance,
        "scheduler": type(pipe.scheduler).__name__,
        "model": _model_name(chosen.model),
        "vae": chosen.vae and _model_name(chosen.vae),
        "lora": [{"file": Path(file).name, "scale": scale} for file, scale in chosen.loras()] or None,
        "dtype": str(denoiser(pipe).dtype).removeprefix("torch."),
        "versions": {"t2i-tools": __version__, "diffusers": diffusers.__version__, "torch": torch.__version__},
    }
    return {name: value for name, value in settings.items() if value is not None}


@contextmanager
def progress_bar(images: int, show: bool) -> Iterator[Callable[[int, int, int], None]]:
    """A bar on stderr over the steps of all images; yields on_step(index of the image, steps done, steps in all)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    # Rich would send what is printed meanwhile to the bar's console, past a file or pipe that waits for it.
    bar = Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty())
    bar.disable = not (show and console.is_terminal)
    with bar as progress:
        task = progress.add_task("denoising", total=None)

        def on_step(index: int, step: int, steps: int) -> None:
            label = f"image {index + 1} of {images}" if images > 1 else "denoising"
            progress.update(task, description=label, completed=step, total=steps)

        yield on_step


def _numbered(values: dict[str, Any]) -> list[Request]:
    number = values.pop("number")
    if number < 1:
        raise InputError(f"number {number} is out of range: it takes 1 or more")
    if values["fit"] not in FITS:
        raise InputError(f"unknown fit {values['fit']!r}: choose {' or '.join(FITS)}")
    first = values.pop("seed")
    return [Request(**values, seed=first + index) for index in range(number)]


def _model_name(source: str) -> str:
    """Without the folders it lies in, which are nobody else's business; a Hub id keeps its owner."""
    return Path(source).stem if Path(source).expanduser().exists() else source
