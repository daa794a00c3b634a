"""`t2i probe`: what the padding of prompts does, or which padding policy is best, as images, tables and a verdict."""

import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t2i_tools.cli import options
from t2i_tools.errors import InputError, ModelError
from t2i_tools.images.promptfile import LABELLED, one_source, read_prompts
from t2i_tools.images.sizes import parse_size
from t2i_tools.workflows.choices import CLEAN, POOLED
from t2i_tools.workflows.open_model import BUNDLED, BUNDLED_FORMS, ModelOptions, open_model
from t2i_tools.workflows.outputs import check_folder
from t2i_tools.workflows.probe import (
    DEFAULT_SEED,
    default_rows,
    policy_lines,
    save_policies,
    save_probe,
)

if TYPE_CHECKING:
    from t2i_tools.images.generate import Request
    from t2i_tools.images.sizes import Size
    from t2i_tools.metrics import ClipScorer
    from t2i_tools.padding.comparison import PolicyComparison
    from t2i_tools.padding.probe import Probe

FIELDS = {name: LABELLED[name] for name in ("prompt", "label", "count")}  # what of a row acts here

CONDITIONS = "full,prompt,pads,clean,swapped"
Prompt = Annotated[
    str | None,
    typer.Argument(metavar="PROMPT", help="What to draw; in quotes. Sixteen prompts by default.", show_default=False),
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="For images, figures and the page.")]
Conditions = Annotated[
    str,
    typer.Option(
        metavar="NAME,NAME...",
        help="What is kept of the prompt's embedding, the rest being replaced: full (all), prompt (its words), pads "
        "(the padding), clean (nothing), swapped (another prompt's padding), eos, noise, pads:1/5, random:10, "
        "rows:0-5.",
    ),
]
CleanName = Annotated[str, options.choice("clean text", CLEAN, help="What the other rows are replaced by.")]
PooledName = Annotated[str, options.choice("pooled vector", POOLED, help="Whose pooled vector the model is given.")]
PromptsFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help=".txt, .csv or .jsonl with a column prompt and, for --judge, columns class and count."
    ),
]
ClipName = Annotated[
    str | None,
    typer.Option(
        metavar="bundled|FOLDER|HUB_ID",
        help="The CLIP that scores each image; by default the bundled one for the bundled model, else OpenAI's.",
    ),
]
Policies = Annotated[
    bool,
    options.flag("--policies", "Compare the padding policies that the model can follow instead, and advise one."),
]
Number = Annotated[
    int | None,
    typer.Option("--number", "-n", metavar="N", min=1, help="Images per prompt; by default 1, or 2 with --policies."),
]
Length = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Rows of text: max_sequence_length of a pipeline that takes one."),
]


@options.with_options(ModelOptions)
def probe(
    prompt: Prompt = None,
    prompts: PromptsFile = None,
    output: Output = Path("outputs/probe"),
    policies: Policies = False,
    conditions: Conditions = CONDITIONS,
    clean: CleanName = "empty",
    pooled: PooledName = "full",
    negative: options.Negative = None,
    size: options.ImageSize = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    length: Length = None,
    seed: options.Seed = None,
    number: Number = None,
    judge: options.Judge = None,
    clip: ClipName = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    **option_values: Any,
) -> None:
    """Show what padding tokens do: exchange them in the text encoder's output and before every attention block."""
    from t2i_tools.images.generate import MAX_SEED, Request, check_request
    from t2i_tools.padding.conditions import parse_condition
    from t2i_tools.workflows.detectors import check_labels, judge_on

    keeps = [parse_condition(one.strip()) for one in conditions.split(",")]
    ours = prompt is None and prompts is None
    rows = _rows(prompt, prompts)
    wanted = parse_size(size) if size else None
    number = number or (2 if policies else 1)
    seed = (DEFAULT_SEED if ours else random.randrange(2**32)) if seed is None else seed
    if not 0 <= seed <= MAX_SEED - number:
        raise InputError(
            f"seed {seed} is out of range: use 0 to {MAX_SEED - number}, so that {number} seeds in a row fit"
        )
    chosen = options.pick(ModelOptions, option_values)
    judge = judge or usual_judge(ours, chosen.model)
    objects = {row["prompt"]: {row["label"]: row["count"]} for row in rows if "label" in row and "count" in row}
    if judge and not objects:
        raise InputError("--judge needs to know what to look for: a --prompts file with columns class and count")
    check_folder(output, ("probe.json", "policies.json"))
    labels = sorted({label for by in objects.values() for label in by})
    counter = judge_on(judge, None, labels, chosen.device) if judge else None
    if judge and counter:
        check_labels(counter, labels, judge)
    scorer = _scorer(clip, chosen)
    pipe = open_model(chosen)
    request = Request(rows[0]["prompt"], seed, negative=negative, size=wanted, steps=steps, guidance=guidance)
    call = _call(pipe, chosen.model, request, length)
    for row in rows:
        check_request(pipe, replace(request, prompt=row["prompt"], size=_size_of(call)))
    about = {"prompt": prompt or str(prompts or "the default prompts"), "model": Path(chosen.model).name, "seed": seed}
    what = {"counter": counter, "objects": objects if judge else None, "clip": scorer, **call}
    drawn = [row["prompt"] for row in rows], range(seed, seed + number)
    if policies:
        compared = _policies(pipe, *drawn, what, quiet or as_json)
        save_policies(compared, output, about | call)
        lines: list[Any] = [compared.table(), *policy_lines(compared)]
    else:
        exchange = {"clean": clean, "pooled": pooled}
        found = _probe(pipe, *drawn, {"conditions": keeps, **exchange, **what}, quiet or as_json)
        save_probe(found, output, about | exchange | call)
        lines = [found.table(), found.note, found.verdict.table(), found.kind_line, f"verdict: {found.verdict}"]
    page = output / ("policies.html" if policies else "probe.html")
    if as_json:
        print(page.with_suffix(".json").read_text(encoding="utf-8").rstrip())
    elif not quiet:
        print(*filter(None, map(str, lines)), page, sep="\n\n")


def _probe(pipe: Any, prompts: list[str], seeds: range, options: dict[str, Any], silent: bool) -> "Probe":
    from t2i_tools.padding.probe import probe_padding
    from t2i_tools.workflows.progress import batch_progress

    with batch_progress(not silent) as on_batch:
        return probe_padding(
            pipe, prompts, seeds, on_image=lambda done, total: on_batch("images", done, total), **options
        )


def _policies(pipe: Any, prompts: list[str], seeds: range, options: dict[str, Any], silent: bool) -> "PolicyComparison":
    from t2i_tools.padding.comparison import compare_policies
    from t2i_tools.workflows.progress import batch_progress

    with batch_progress(not silent) as on_batch:
        return compare_policies(
            pipe, prompts, seeds, on_image=lambda done, total: on_batch("images", done, total), **options
        )


def _rows(prompt: str | None, file: Path | None) -> list[dict[str, Any]]:
    """The prompts file's rows, or the one prompt, or those of ours. Raises InputError."""
    if prompt is None and file is None:
        return default_rows()
    one_source(prompt, file)
    if file:
        return [row for _, row in read_prompts(file, FIELDS, counted=True)]
    if not str(prompt).strip():
        raise InputError("the prompt is empty: say what to draw")
    return [{"prompt": prompt}]


def usual_judge(ours: bool, model: str) -> str | None:
    """The detector without --judge: the bundled one where our own prompts meet the bundled model."""
    from t2i_tools.workflows.detectors import JUDGES

    return JUDGES[0] if ours and model in BUNDLED_FORMS else None


def _scorer(name: str | None, chosen: ModelOptions) -> "ClipScorer":
    """The CLIP of --clip, or the usual one. Raises T2IError."""
    from t2i_tools.padding.probe import CLIP
    from t2i_tools.workflows.detectors import clip_on

    if name == "none":
        raise InputError("--clip none: a probe reports the CLIP score: give a CLIP, or leave --clip out")
    if name or chosen.model in BUNDLED_FORMS:
        return clip_on(name or BUNDLED, chosen.device)
    try:
        return clip_on(CLIP, chosen.device)
    except ModelError as error:
        raise ModelError(f"{error}; --clip FOLDER takes one that is on this machine") from error


def _call(pipe: Any, model: str, request: "Request", length: int | None) -> dict[str, Any]:
    """Arguments of the pipeline's call for what the request says besides its prompt. Raises InputError."""
    from t2i_tools.images.guidance import guidance_arguments
    from t2i_tools.images.signature import call_default
    from t2i_tools.images.sizes import possible_size
    from t2i_tools.models.anatomy import size_multiple
    from t2i_tools.workflows.settings import with_defaults

    request = with_defaults(request, pipe, model)
    call: dict[str, Any] = {"num_inference_steps": request.steps, "max_sequence_length": length}
    if length is not None and call_default(pipe, "max_sequence_length") is None:
        raise InputError(f"--length: {type(pipe).__name__} takes no max_sequence_length")
    if request.size:
        height, width = possible_size(request.size, size_multiple(pipe), "snap")
        call |= {"height": height, "width": width}
    if call_default(pipe, "use_resolution_binning"):
        call["use_resolution_binning"] = False
    call = {name: value for name, value in call.items() if value is not None}
    return call | guidance_arguments(pipe, request.guidance, [request.negative])


def _size_of(call: dict[str, Any]) -> "Size | None":
    return (call["height"], call["width"]) if "height" in call else None
