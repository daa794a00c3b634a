"""How pipelines bring the latents of their loop to what their VAE decodes, at the end of a call."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from t2i_tools.images.sizes import Size


def scaled(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Undo the scaling of latents (B, C, ...): by mean and deviation of each channel where the VAE has them."""
    config = vae.config
    factor = getattr(config, "scaling_factor", None) or 1.0
    mean, std = (getattr(config, name, None) for name in ("latents_mean", "latents_std"))
    if mean is not None and std is not None:
        shape = (1, -1, *[1] * (latents.ndim - 2))
        mean, std = (latents.new_tensor(values).view(shape) for values in (mean, std))
        return latents * std / factor + mean
    return latents / factor + (getattr(config, "shift_factor", None) or 0)


def unpacked(pipe: Any, latents: torch.Tensor, size: Size) -> torch.Tensor:
    """Latents that are packed to tokens (B, N, C), by the pipeline's own `_unpack_latents`, unscaled."""
    height, width = size
    known = {"height": height, "width": width, "vae_scale_factor": pipe.vae_scale_factor}
    known["patch_size"] = getattr(pipe.transformer.config, "patch_size", None)
    takes = inspect.signature(pipe._unpack_latents).parameters
    return scaled(pipe.vae, pipe._unpack_latents(latents, **{name: known[name] for name in takes if name in known}))


def unpatchified(pipe: Any, latents: torch.Tensor, size: Size | None) -> torch.Tensor:
    """Patches (B, N, C) or (B, C, rows, columns) that were normalized by the VAE's batch norm, as latents."""
    if size is not None and latents.ndim == 3:
        rows = size[0] // (pipe.vae_scale_factor * 2)
        latents = latents.transpose(1, 2).unflatten(-1, (rows, -1))
    norm = pipe.vae.bn
    mean, variance = (one.view(1, -1, 1, 1).to(latents) for one in (norm.running_mean, norm.running_var))
    return pipe._unpatchify_latents(latents * (variance + pipe.vae.config.batch_norm_eps).sqrt() + mean)
