"""`t2i advise`: what to switch on at a size, and the measurements that say so."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t2i_tools.cli import options
from t2i_tools.models import native_size
from t2i_tools.sizes import format_size, parse_size

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from t2i_tools.evaluation.advice import Advice, Evidence


@options.with_options(options.ModelOptions)
def advise(
    size: Annotated[str, typer.Argument(metavar="WxH", help="Pixels.", show_default=False)],
    evidence: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What examples/evaluate_sizes.py wrote; the one that comes with us if none."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the advice as JSON.")] = False,
    *,
    native: options.Native = None,
    **given: Any,
) -> None:
    """Say what to use at a size: off, entropy scaling, another strength or two passes; or that it was not measured."""
    from t2i_tools.default import SIZES
    from t2i_tools.evaluation.advice import advise as advise_on
    from t2i_tools.evaluation.advice import read_evidence

    wanted = parse_size(size)
    own = parse_size(native) if native else None
    known = read_evidence(evidence or SIZES) if evidence or SIZES.exists() else None
    pipe = options.open_model(options.pick(options.ModelOptions, given))
    own = own or native_size(pipe)
    advice = advise_on(fitting(known, pipe), wanted, own)
    if as_json:
        told = {"size": format_size(wanted), "native": own and format_size(own), "advice": advice.options}
        print(json.dumps({**told, "why": advice.why, "points": [asdict(point) for point in advice.points]}, indent=2))
    else:
        print("\n".join(lines(format_size(wanted), advice, known)))


def fitting(evidence: "Evidence | None", pipe: "DiffusionPipeline") -> "Evidence | None":
    """The evidence, if it was measured with these very weights and settings."""
    from t2i_tools.evaluation.fingerprint import pipeline_fingerprint

    return evidence if evidence and evidence.fingerprint == pipeline_fingerprint(pipe) else None


def lines(size: str, advice: "Advice", evidence: "Evidence | None") -> list[str]:
    """The advice in words, and a line for each figure it rests on."""
    from t2i_tools.evaluation.advice import OPTIONS

    if advice.method is None:
        return [f"{size}: not measured ({advice.why})", "examples/evaluate_sizes.py measures, t2i sizes shows"]
    found = [f"{size}: {advice.options or 'off'} ({advice.why})"]
    if advice.points:
        found.append(f"exact counts at {format_size(advice.points[0].size)}, {evidence.prompts} prompts:")
    for point in advice.points:
        against = f", {point.difference} against off" if point.difference else ""
        found.append(f"  {OPTIONS[point.method] or 'off'}: {point.exact}{against}")
    return found
