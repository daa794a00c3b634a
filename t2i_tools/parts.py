"""Exchanging parts of an open pipeline: scheduler, VAE, LoRA. All weights are safetensors."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from t2i_tools.errors import InputError, ModelError, UnsupportedModelError, first_line
from t2i_tools.imagefile import SAMPLERS
from t2i_tools.loading import HUB_ID, check_safetensors, opening

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, ModelMixin

SAMPLER_CLASSES = {sampler.lower(): kind for kind, sampler in SAMPLERS.items()}


def schedulers(pipe: DiffusionPipeline) -> dict[str, type]:
    """Short name -> class of every scheduler that fits the pipeline, its own included: "euler", "ddim", "unipc"..."""
    own = type(pipe.scheduler)
    classes = {own, *getattr(pipe.scheduler, "compatibles", [])}
    return {_short(kind.__name__): kind for kind in sorted(classes, key=lambda kind: kind.__name__)}


def use_scheduler(pipe: DiffusionPipeline, name: str) -> None:
    """Exchange the scheduler for the named one, with the settings of the present one (prediction type, betas...).

    name: a diffusers class or its short form, where case, spaces and hyphens do not matter, or the name that other
    tools and our image files give it ("Euler a"). Raises InputError.
    """
    known = schedulers(pipe)
    kind = known.get(_short(SAMPLER_CLASSES.get(name.lower(), name)))
    if kind is None:
        raise InputError(f"unknown scheduler {name!r}: this model takes {', '.join(known)}")
    try:
        pipe.scheduler = kind.from_config(pipe.scheduler.config)
    except (ImportError, ValueError) as error:
        raise InputError(f"scheduler {name!r} does not work here: {first_line(error)}") from error


def use_vae(pipe: DiffusionPipeline, source: str | Path) -> None:
    """Exchange the VAE for one from a folder, a Hub id or a .safetensors file of the pipeline's own kind of VAE.

    Raises ModelError when it cannot be opened, UnsupportedModelError when its latents differ from the model's.
    """
    present = getattr(pipe, "vae", None)
    if present is None:
        raise UnsupportedModelError(f"{type(pipe).__name__} has no VAE to exchange")
    with opening(source):
        vae = _open_vae(source, present)
    if _latents(vae) != _latents(present):
        raise UnsupportedModelError(
            f"the VAE {source} has {_latents(vae)} (channels, factor) of latents, the model {_latents(present)}"
        )
    pipe.vae = vae.to(present.device).eval()


def use_loras(pipe: DiffusionPipeline, loras: Sequence[tuple[str | Path, float]]) -> None:
    """Load LoRA files, each with its scale, and switch all of them on.

    Raises ModelError when one cannot be opened, UnsupportedModelError when it fits no part of the model.
    """
    from diffusers.utils import is_peft_available

    if not hasattr(pipe, "load_lora_weights"):
        raise UnsupportedModelError(f"{type(pipe).__name__} takes no LoRA")
    paths = [Path(path).expanduser() for path, _ in loras]
    for path in paths:
        check_safetensors(path)
    if not is_peft_available():
        raise UnsupportedModelError("LoRA files need the package peft: pip install peft")
    names = [f"lora_{index}" for index in range(len(loras))]
    for path, name in zip(paths, names, strict=True):
        with opening(path):
            pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name, use_safetensors=True)
        if not any(name in loaded for loaded in pipe.get_list_adapters().values()):
            raise UnsupportedModelError(f"the LoRA {path} fits no part of this model: was it made for another one?")
    pipe.set_adapters(names, [scale for _, scale in loras])


def _open_vae(source: str | Path, present: ModelMixin) -> ModelMixin:
    from diffusers import AutoModel

    path = Path(source).expanduser()
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelError(f"{source} is no VAE: it has no config.json")
    if path.is_dir() or (re.fullmatch(HUB_ID, str(source)) and path.suffix != ".safetensors"):
        for file in path.glob("*.safetensors"):
            check_safetensors(file)
        return AutoModel.from_pretrained(
            str(path) if path.is_dir() else source, use_safetensors=True, dtype=present.dtype
        )
    if path.suffix != ".safetensors":
        raise ModelError(f"the VAE {source} is neither a folder nor a .safetensors file nor a Hub id (owner/name)")
    check_safetensors(path)
    if not hasattr(present, "from_single_file"):
        raise ModelError(f"{source}: an {type(present).__name__} opens from a folder only, not from one file")
    with tempfile.TemporaryDirectory() as config:  # its own would be looked up on the Hub
        present.save_config(config)
        return type(present).from_single_file(str(path), config=config, dtype=present.dtype)


def _latents(vae: ModelMixin) -> tuple[int | None, int | None]:
    """(channels, pixels per latent) as far as the config says."""
    config = vae.config
    channels = getattr(config, "latent_channels", None) or getattr(config, "z_dim", None)
    blocks = getattr(config, "block_out_channels", None) or getattr(config, "encoder_block_out_channels", None)
    return channels, 2 ** (len(blocks) - 1) if blocks else None


def _short(name: str) -> str:
    name = re.sub(r"[^a-z0-9]", "", name.lower())
    return re.sub(r"(discrete|multistep)?(scheduler)?$", "", name)
