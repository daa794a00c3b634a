"""`t2i advise`: what to switch on at a size, and the measurements that say so."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t2i_tools.cli import options
from t2i_tools.images.sizes import format_size, parse_size
from t2i_tools.models.anatomy import native_size
from t2i_tools.workflows.open_model import ModelOptions, open_model

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.evaluation.studies.advice import Advice, Evidence


@options.with_options(ModelOptions)
def advise(
    size: Annotated[str, typer.Argument(metavar="WxH", help="The size in pixels, width x height.", show_default=False)],
    evidence: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Measurements from examples/evaluations/sizes/run.py; those of the bundled model by default.",
        ),
    ] = None,
    as_json: options.AsJson = False,
    *,
    native: options.Native = None,
    **option_values: Any,
) -> None:
    """Say what to use at a size, by measurements: nothing, entropy scaling, two passes; or that nobody measured it."""
    from t2i_tools.bundled import SIZES
    from t2i_tools.evaluation.studies.advice import advise as advise_on, read_evidence

    wanted = parse_size(size)
    own = parse_size(native) if native else None
    known = read_evidence(evidence or SIZES) if evidence or SIZES.exists() else None
    pipe = open_model(options.pick(ModelOptions, option_values))
    own = own or native_size(pipe)
    advice = advise_on(fitting(known, pipe), wanted, own)
    if as_json:
        summary = {"size": format_size(wanted), "native": own and format_size(own), "advice": advice.options}
        print(
            json.dumps({**summary, "why": advice.why, "points": [asdict(point) for point in advice.points]}, indent=2)
        )
    else:
        print("\n".join(lines(format_size(wanted), advice, known)))


def fitting(evidence: "Evidence | None", pipe: "DiffusionPipeline") -> "Evidence | None":
    """The evidence, if it was measured with these very weights and settings."""
    from t2i_tools.evaluation.runs.fingerprint import pipeline_fingerprint

    return evidence if evidence and evidence.fingerprint == pipeline_fingerprint(pipe) else None


def lines(size: str, advice: "Advice", evidence: "Evidence | None") -> list[str]:
    """The advice in words, and a line for each figure it rests on."""
    from t2i_tools.evaluation.studies.advice import OPTIONS

    if advice.method is None:
        return [f"{size}: not measured ({advice.why})", "examples/evaluations/sizes/run.py measures, t2i sizes shows"]
    found = [f"{size}: {advice.options or 'off'} ({advice.why})"]
    if advice.points and evidence:
        found.append(f"exact counts at {format_size(advice.points[0].size)}:")
    for point in advice.points:
        against = f", {point.difference} against off" if point.difference else ""
        found.append(f"  {OPTIONS[point.method] or 'off'}: {point.exact}, {point.exact.n} images{against}")
    return found
