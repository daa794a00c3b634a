"""How much the app may be asked for; apart from its other options, for the shell builds on these."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer


def _most(what: str) -> Any:
    """What typer is told of an option."""
    return typer.Option(min=1, help=what, rich_help_panel="Limits")


@dataclass(frozen=True)
class Limits:
    """The most that a job may ask for, that may wait, and that uploads may take; each is an option of `t2i ui`."""

    pixels: Annotated[int, _most("Of one image.")] = 1024 * 1024
    steps: Annotated[int, _most("Denoising steps.")] = 150
    images: Annotated[int, _most("Images at once.")] = 16
    cells: Annotated[int, _most("Cells of a grid.")] = 64
    items: Annotated[int, _most("Images of an evaluation or a probe.")] = 500
    budget: Annotated[int, _most("Of a search for a count, for each image, in plain images' worth.")] = 100
    queue: Annotated[int, _most("Jobs that may wait.")] = 100
    upload_mib: Annotated[int, _most("MiB of one uploaded file.")] = 20
    uploads_mib: Annotated[int, _most("MiB that uploads take on the disk; the oldest go first.")] = 2048
