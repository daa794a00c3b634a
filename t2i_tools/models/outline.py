"""A pipeline without its weights: what its configuration says, before anything large is read."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING

from t2i_tools.errors import ModelError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

PARTS = ("unet", "transformer", "prior", "vae", "vqvae")  # what sizes are read from; all else is left out


def outline(folder: Path) -> DiffusionPipeline:
    """The pipeline of a folder with its denoiser and VAE on the meta device, and without its other parts.

    Args:
        folder: In the format of diffusers; its weights may be missing.

    Returns:
        A pipeline that can be asked for its sizes and draws nothing.

    Raises:
        ModelError: Where the configuration is not of a class that diffusers has, or does not build one.
    """
    import diffusers
    import torch

    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        kind = getattr(diffusers, index["_class_name"])
        takes = inspect.signature(kind.__init__).parameters
        values = {name: index.get(name) for name in takes if not isinstance(index.get(name, []), list)}
        parts = {name: getattr(diffusers, index[name][1]) for name in PARTS if name in index and index[name][1]}
        with torch.device("meta"):
            built = {name: part.from_config(part.load_config(folder / name)) for name, part in parts.items()}
        required = {name: None for name, value in takes.items() if name != "self" and value.default is value.empty}
        return kind(**required | values | built)
    except Exception as error:  # whatever a stranger's configuration makes its class raise
        raise ModelError(f"{folder.name} does not say what it is: {type(error).__name__}") from error
