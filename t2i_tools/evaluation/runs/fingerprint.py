"""A hash of what a model is: every weight and every setting, wherever it was opened from."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import nn

# What says where a model comes from or which version wrote it, but not what it computes.
_INCIDENTAL = ("transformers_version", "architectures", "torch_dtype", "dtype", "name_or_path")


def pipeline_fingerprint(pipe: DiffusionPipeline) -> str:
    """A hash (32 hex digits) of the pipeline's class and all its parts: weights, LoRAs, scheduler, tokenizers."""
    sha = hashlib.sha256(type(pipe).__name__.encode())
    for name, part in sorted(pipe.components.items()):
        sha.update(f"{name} {type(part).__name__} {_settings(part)}".encode())
        if hasattr(part, "state_dict") and hasattr(part, "parameters"):
            _add_weights(sha, part)
    return sha.hexdigest()[:32]


def detector_fingerprint(detector: Any) -> str:
    """A hash (32 hex digits) of a detector's class, labels, threshold and weights, as far as it has them."""
    sha = hashlib.sha256(type(detector).__name__.encode())
    for name in ("labels", "threshold"):
        sha.update(f"{name} {getattr(detector, name, None)}".encode())
    for name, part in sorted(vars(detector).items()):
        if hasattr(part, "state_dict") and hasattr(part, "parameters"):
            sha.update(name.encode())
            _add_weights(sha, part)
    return sha.hexdigest()[:32]


def weights_fingerprint(module: nn.Module) -> str:
    """A hash (32 hex digits) of a module's weights."""
    sha = hashlib.sha256()
    _add_weights(sha, module)
    return sha.hexdigest()[:32]


def _add_weights(sha: Any, module: nn.Module) -> None:
    import torch

    for name, tensor in sorted(module.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        tensor = tensor.detach().to("cpu").contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)


def _settings(part: Any) -> str:
    if hasattr(part, "get_vocab"):
        return json.dumps([part.model_max_length, sorted(part.get_vocab().items())])
    config: Any = getattr(part, "config", None)
    config = config.to_dict() if hasattr(config, "to_dict") else dict(config or {})
    return json.dumps(_without_incidentals(config), sort_keys=True, default=str)


def _without_incidentals(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {str(name): inner for name, inner in value.items()}
        return {n: _without_incidentals(v) for n, v in kept.items() if n[0] != "_" and n not in _INCIDENTAL}
    return [_without_incidentals(inner) for inner in value] if isinstance(value, list | tuple) else value
