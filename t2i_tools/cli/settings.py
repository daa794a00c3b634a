"""`t2i settings`: what an image file says of how it was made, whichever tool has written it."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t2i_tools.cli.options import AsJson
from t2i_tools.errors import InputError

if TYPE_CHECKING:
    from t2i_tools.images.settings import FileSettings

SHOWN = ("prompt", "negative", "seed", "steps", "guidance", "size", "sampler", "scheduler", "model", "lora")


def settings(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="PNG, WebP or JPEG files.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show the settings that images hold: of t2i-tools, AUTOMATIC1111, ComfyUI, Fooocus, InvokeAI and others."""
    from t2i_tools.images.settings import read_file

    rows, faults = [], []
    for file in files:
        try:
            rows.append((file, read_file(file)))
        except InputError as error:
            faults.append(error)
    if as_json:
        print(json.dumps([as_row(file, read) for file, read in rows], indent=2))
    else:
        _print_tables(rows)
    for fault in faults[:-1]:
        print(f"t2i: {fault}", file=sys.stderr)
    if faults:
        raise faults[-1]


def as_row(file: Path, read: "FileSettings") -> dict[str, Any]:
    """One file's settings as JSON gives them, with width and height as one size."""
    found = dict(read.settings)
    width, height = found.pop("width", None), found.pop("height", None)
    if width and height:
        found["size"] = f"{width}x{height}"
    order = [name for name in SHOWN if name in found] + [name for name in found if name not in SHOWN]
    about = {"file": str(file), "tool": read.tool}
    return about | {name: found[name] for name in order} | {"other": read.other, "notes": list(read.notes)}


def _print_tables(rows: "list[tuple[Path, FileSettings]]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for file, read in rows:
        row = as_row(file, read)
        table = Table(title=Text(f"{file} ({read.tool})"), title_justify="left", show_header=False, box=None)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        fields = [(name, value) for name, value in row.items() if name not in ("file", "tool", "other", "notes")]
        for name, value in [*fields, *read.other.items(), *(("note", note) for note in read.notes)]:
            table.add_row(Text(str(name)), Text(value if isinstance(value, str) else json.dumps(value)))
        console.print(table)
