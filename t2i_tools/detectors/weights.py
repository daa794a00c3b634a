"""A detector as one safetensors file: tensors in half precision, and its settings as JSON in the header."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from t2i_tools.errors import ModelError, shortened
from t2i_tools.files import replacing
from t2i_tools.models.loading import PICKLES, check_safetensors, opening

CONVERT = "if you trust it, `t2i detector convert {} --trust-pickle` makes it a .safetensors file, once"
Net = TypeVar("Net", bound=nn.Module)
MOST_LABELS = 100_000
MOST_PIXELS = 16_384  # of a side


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
    about = read_settings(path)
    with opening(Path(path)), safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118


def read_settings(path: str | os.PathLike) -> dict[str, Any]:
    """The settings in the header alone. Raises ModelError as `read_weights` does."""
    if Path(path).suffix.lower() in PICKLES:
        raise ModelError(f"{path} is a pickle, which can run code when opened: {CONVERT.format(path)}")
    check_safetensors(Path(path))
    with opening(Path(path)), safe_open(path, "pt") as file:
        config = json.loads((file.metadata() or {}).get("config", "{}"))
    return config if isinstance(config, dict) else {}


def check_header(
    path: str | os.PathLike, about: Mapping[str, Any], checks: Mapping[str, Callable[[Any], object]]
) -> None:
    """Raise ModelError for a value of a header that is there and fails its check."""
    if wrong := [name for name, check in checks.items() if about.get(name) is not None and not check(about[name])]:
        raise ModelError(f"{path} is damaged: its {wrong[0]} cannot be {shortened(repr(about[wrong[0]]))}")


def is_labels(value: Any) -> bool:
    """Whether a value can be the names of a detector's classes."""
    return isinstance(value, list) and 1 <= len(value) <= MOST_LABELS and all(isinstance(one, str) for one in value)


def is_share(value: Any) -> bool:
    """Whether a value can be a threshold or an overlap."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def is_side(value: Any) -> bool:
    """Whether a value can be the side of an image in pixels."""
    return type(value) is int and 1 <= value <= MOST_PIXELS


def fill(net: Net, tensors: Mapping[str, torch.Tensor], path: str | os.PathLike) -> Net:
    """Loads every tensor of `net`, keeping its dtype. Raises ModelError when names or shapes differ."""
    kept = {name: value for name, value in net.state_dict().items() if name.endswith("num_batches_tracked")}
    try:
        net.load_state_dict({**kept, **tensors})
    except RuntimeError as error:
        raise ModelError(f"the tensors of {path} do not fit the detector that its header or yaml describes") from error
    return net
