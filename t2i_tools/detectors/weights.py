"""A detector as one safetensors file: tensors in half precision, and its settings as JSON in the header."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from t2i_tools.errors import ModelError
from t2i_tools.files import replacing
from t2i_tools.loading import PICKLES, check_safetensors, opening


def write_weights(path: str | os.PathLike, net: nn.Module, config: dict[str, Any]) -> None:
    """Replaces the file whole. `config` must be JSON's. Raises InputError for a place that cannot be written."""
    tensors = {
        name: (value.half() if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    with replacing(Path(path)) as part:
        part.write_bytes(save(tensors, {"config": json.dumps(config)}))  # save_file hides it from other users


def read_weights(path: str | os.PathLike) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the settings, {} where the header has none of ours. Raises ModelError for another format."""
    if Path(path).suffix.lower() in PICKLES:
        raise ModelError(f"{path} is a pickle, which can run code when opened: convert it to .safetensors first")
    names = check_safetensors(Path(path))
    with opening(path), safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in names}
        config = json.loads((file.metadata() or {}).get("config", "{}"))
    return tensors, config if isinstance(config, dict) else {}


def fill(net: nn.Module, tensors: dict[str, torch.Tensor], path: str | os.PathLike) -> nn.Module:
    """Loads every tensor of `net`, keeping its dtype. Raises ModelError when names or shapes differ."""
    kept = {name: value for name, value in net.state_dict().items() if name.endswith("num_batches_tracked")}
    try:
        net.load_state_dict(kept | tensors)
    except RuntimeError as error:
        raise ModelError(f"the tensors of {path} do not fit the detector its header names") from error
    return net
