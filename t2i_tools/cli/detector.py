"""`t2i detector`: what is done to a detector itself."""

import json
from pathlib import Path
from typing import Annotated

import typer

from t2i_tools.cli.commands import Group, Verb
from t2i_tools.cli.options import AsJson, flag

detector = typer.Typer(cls=Group, help="Prepare a detector: convert a YOLO's .pt file, once.")


@detector.callback()
def _group() -> None:
    """Keep `convert` a subcommand: typer would fold a single one into its parent."""


@detector.command(cls=Verb)
def convert(
    source: Annotated[Path, typer.Argument(metavar="FILE.pt", help="A YOLO of ultralytics.", show_default=False)],
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE.safetensors|FOLDER", help="Where it goes; beside the source by default.", show_default=False
        ),
    ] = None,
    trust_pickle: Annotated[
        bool, flag("--trust-pickle", "Allow reading this pickle, because you trust its maker. Nothing in it is run.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Convert a YOLO's .pt file to one .safetensors file, with its classes, once.

    The file is a pickle, which can run code when opened, so it is read only with --trust-pickle: in a process of its
    own, and as data.
    """
    from t2i_tools.detectors.conversion import convert_yolo
    from t2i_tools.workflows.open_model import silence_libraries

    silence_libraries()
    file, about = convert_yolo(source, target, trust_pickle=trust_pickle)
    summary = {
        "file": str(file),
        "kind": about["kind"],
        "labels": about["labels"] or [],
        "image_size": about["image_size"],
    }
    print(json.dumps(summary, indent=2) if as_json else _text(summary))


def _text(summary: dict) -> str:
    from t2i_tools.detectors.names import listed

    labels = summary["labels"]
    names = f"{len(labels)} classes: {listed(labels)}" if labels else "its classes have no names"
    if summary["kind"] != "yolo":
        names = f"any word, with its CLIP text encoder in {Path(summary['file']).parent / 'clip'}"
    return f"{summary['file']}\n{names}"
