"""`t2i probe`: what the padding of prompts does, as a grid of images, a table and a verdict."""

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t2i_tools.cli import options
from t2i_tools.errors import InputError
from t2i_tools.promptfile import LABELLED, read_prompts
from t2i_tools.sizes import parse_size

if TYPE_CHECKING:
    from PIL import Image

    from t2i_tools.padding.probe import Probe

CONDITIONS = "full,prompt,pads,clean,swapped"
Prompt = Annotated[str, typer.Argument(metavar="PROMPT|FILE", help="What to draw, or a .txt, .csv or .jsonl file.")]
Output = Annotated[Path, typer.Option(metavar="FOLDER", help="For probe.png and probe.json.")]
Conditions = Annotated[
    str, typer.Option(help=f"Of {CONDITIONS}, eos, noise, pads:1/5, random:10 and rows:0-5, with commas.")
]
Clean = Annotated[str, typer.Option(help="What replaces the other rows: empty, pad or zeros.")]
Pooled = Annotated[str, typer.Option(help="Whose pooled vector: full or clean.")]
Length = Annotated[int | None, typer.Option(help="max_sequence_length of the pipeline, where it takes one.")]
Seed = Annotated[int | None, typer.Option(help="Of the first image of each prompt; random by default.")]
Number = Annotated[int, typer.Option(help="Seeds per prompt.")]
JudgeName = Annotated[
    str | None,
    typer.Option(metavar="bundled|FOLDER|FILE|HUB_ID", help="Finds objects, where the file has label and count."),
]
ClipName = Annotated[
    str | None, typer.Option(metavar="bundled|FOLDER|HUB_ID", help="The CLIP that scores; the model's usual one.")
]
Json = Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, table and verdict.")]


@options.with_options(options.ModelOptions)
def probe(
    prompt: Prompt,
    output: Output = Path("outputs/probe"),
    conditions: Conditions = CONDITIONS,
    clean: Clean = "empty",
    pooled: Pooled = "full",
    size: options.ImageSize = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    length: Length = None,
    seed: Seed = None,
    number: Number = 1,
    judge: JudgeName = None,
    clip: ClipName = None,
    as_json: Json = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Show what padding tokens do: exchange them in the text encoder's output and before every attention block."""
    from t2i_tools.cli.judges import clip_on, judge_on
    from t2i_tools.cli.running import progress
    from t2i_tools.generation import MAX_SEED, Request, check_request
    from t2i_tools.padding.keeps import parse_keep
    from t2i_tools.padding.probe import CLIP, probe_padding

    keeps = [parse_keep(one.strip()) for one in conditions.split(",")]
    rows = _rows(prompt)
    seed = random.randrange(2**32) if seed is None else seed
    if number < 1 or not 0 <= seed <= MAX_SEED - number:
        raise InputError(f"--number takes 1 or more and --seed 0 to {MAX_SEED}")
    if output.exists() and not output.is_dir():
        raise InputError(f"cannot write {output}: it is not a folder")
    chosen = options.pick(options.ModelOptions, given)
    model, device = chosen.model, chosen.device
    pipe = options.open_model(chosen)
    call = _call(pipe, model, size, steps, guidance, length)
    asked = {"size": (call["height"], call["width"]) if size else None}
    for row in rows:
        check_request(pipe, Request(row["prompt"], seed, steps=steps, guidance=guidance, **asked))
    objects = {row["prompt"]: {row["label"]: row["count"]} for row in rows if "label" in row and "count" in row}
    counter = (
        judge_on(judge, None, sorted({label for by in objects.values() for label in by}), device) if judge else None
    )
    if judge and not objects:
        raise InputError("--judge needs to know what to look for: a file with the columns prompt, label and count")
    scorer = clip_on(clip or (options.BUNDLED if model == options.BUNDLED else CLIP), device)
    with progress(not (quiet or as_json)) as on_batch:
        found = probe_padding(
            pipe,
            [row["prompt"] for row in rows],
            range(seed, seed + number),
            conditions=keeps,
            clip=scorer,
            counter=counter,
            objects=objects if judge else None,
            clean=clean,
            pooled=pooled,
            on_image=lambda done, total: on_batch("images", done, total),
            **call,
        )
    settings = {"prompt": prompt, "model": Path(model).name, "seed": seed, "clean": clean, "pooled": pooled, **call}
    save_probe(found, output, settings)
    if as_json:
        print(json.dumps(_plain({**found.as_dict(), "settings": settings}), indent=1))
    elif not quiet:
        print(found.table(), found.note, f"\nverdict: {found.verdict}", output / "probe.png", sep="\n")


def save_probe(found: "Probe", folder: Path, settings: dict[str, Any]) -> None:
    """Write probe.png, the images of the first prompts, and probe.json, all figures."""
    from t2i_tools.evaluation.files import write_text
    from t2i_tools.imagefile import save_image

    write_text(folder / "probe.json", json.dumps(_plain({**found.as_dict(), "settings": settings}), indent=1) + "\n")
    save_image(draw_probe(found), folder / "probe.png", {"verdict": str(found.verdict), **settings})


def draw_probe(found: "Probe") -> "Image.Image":
    """Conditions across, prompts and seeds down, the CLIP score under each image."""
    from t2i_tools.evaluation.grid import Axis, draw_grid

    lines = [f"{prompt[:40]} {seed}" for prompt, seed in zip(found.prompts, found.seeds, strict=True)]
    shown = len(found.cells[0].pictures)
    heads = [cell.condition if cell.route == "plain" else f"{cell.route}: {cell.condition}" for cell in found.cells]
    pictures = [cell.pictures[row] for row in range(shown) for cell in found.cells]
    captions = [f"CLIP {cell.clip[row]:.1f}" for row in range(shown) for cell in found.cells]
    return draw_grid([Axis("", tuple(heads)), Axis("", tuple(lines[:shown]))], pictures, captions)


def _rows(prompt: str) -> list[dict[str, Any]]:
    """The prompts file's rows, or the one prompt."""
    if Path(prompt).suffix.lower() in (".txt", ".csv", ".jsonl"):
        return [row for _, row in read_prompts(prompt, LABELLED)]
    if not prompt.strip():
        raise InputError("the prompt is empty: say what to draw")
    return [{"prompt": prompt}]


def _call(
    pipe: Any, model: str, size: str | None, steps: int | None, guidance: float | None, length: int | None
) -> dict[str, Any]:
    """Arguments of the pipeline's call."""
    from t2i_tools.cli.generate import with_defaults
    from t2i_tools.generation import Request, call_default
    from t2i_tools.models import size_multiple
    from t2i_tools.sizes import possible_size

    request = with_defaults(Request("any", 0, steps=steps, guidance=guidance), pipe, model)
    call = {"num_inference_steps": request.steps, "guidance_scale": request.guidance, "max_sequence_length": length}
    if length is not None and call_default(pipe, "max_sequence_length") is None:
        raise InputError(f"--length: {type(pipe).__name__} takes no max_sequence_length")
    if size:
        height, width = possible_size(parse_size(size), size_multiple(pipe), "snap")
        call |= {"height": height, "width": width}
    if call_default(pipe, "use_resolution_binning"):
        call["use_resolution_binning"] = False
    return {name: value for name, value in call.items() if value is not None}


def _plain(value: Any) -> Any:
    """Without what JSON cannot hold."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else _text(value)


def _text(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
