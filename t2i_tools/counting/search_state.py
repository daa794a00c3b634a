"""A search on disk: everything that its next step depends on, in one safetensors file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes

from t2i_tools.errors import InputError, ModelError
from t2i_tools.files import replacing
from t2i_tools.models.loading import check_safetensors, opening

FORMAT = "t2i-tools count search 1"


def write_checkpoint(path: str | os.PathLike, tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    """Replace the file as a whole. `about` must be JSON's. Raises InputError."""
    content = to_bytes(
        {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()},
        {"format": FORMAT, "search": json.dumps(about)},
    )
    with replacing(Path(path)) as part:
        part.write_bytes(content)


def read_checkpoint(path: str | os.PathLike) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What `write_checkpoint` wrote. Raises ModelError when it is broken, InputError when it is something else."""
    path = Path(path)
    names = check_safetensors(path)
    with opening(path), safe_open(path, "pt") as file:
        about = file.metadata() or {}
        tensors = {name: file.get_tensor(name).clone() for name in names}  # the file is to be replaced
    if about.get("format") != FORMAT:
        raise InputError(f"{path} is not a checkpoint of a count search: give another file")
    with resuming(path):
        return tensors, dict(json.loads(about["search"]))


@contextmanager
def resuming(path: Path) -> Iterator[None]:
    """Turns what a damaged checkpoint raises inside into one ModelError."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: remove it to start the search over") from error
