"""Exchanging parts of an open pipeline: scheduler, VAE, LoRA. All weights are safetensors."""

from __future__ import annotations

import inspect
import logging
import re
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i_tools.errors import InputError, ModelError, UnsupportedModelError, first_line, install
from t2i_tools.models.loading import HUB_ID, check_safetensors, opening
from t2i_tools.models.samplers import FLOW, Sampler, find_sampler, parse_sampler

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin

logger = logging.getLogger("t2i_tools.models")
# What of a scheduler's config is the sampler's and not the model's.
SAMPLER_OPTIONS = (
    *("timestep_spacing", "steps_offset", "final_sigmas_type", "interpolation_type", "sigma_min", "sigma_max"),
    *("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"),
    *("algorithm_type", "solver_order", "solver_type", "lower_order_final", "euler_at_final"),
    *("predictor_order", "corrector_order", "skip_prk_steps", "set_alpha_to_one", "clip_sample"),
    *("original_inference_steps", "timestep_scaling", "stochastic_sampling"),
)
# They fit the models of DDIM and its like, and diffusers does not list them.
UNLISTED = ("LCMScheduler", "TCDScheduler", "SASolverScheduler")

# One side of each layer of a LoRA, by the names of peft, kohya and older diffusers.
LORA_LAYER = re.compile(r"lora_A\b|lora_down\b|lora\.down\b|lora_linear_layer\.down\b")


def schedulers(pipe: DiffusionPipeline) -> dict[str, Any]:
    """Short name -> class of every scheduler that fits the pipeline, its own included: "euler", "ddim", "unipc"..."""
    import diffusers

    own = type(pipe.scheduler)
    classes = {own, *getattr(pipe.scheduler, "compatibles", [])}
    if own.__name__ in FLOW.values():
        classes |= {getattr(diffusers, name) for name in FLOW.values()}
    elif len(classes) > 1:
        classes |= {getattr(diffusers, name) for name in UNLISTED}
    return {_short(kind.__name__): kind for kind in sorted(classes, key=lambda kind: kind.__name__)}


def use_scheduler(pipe: DiffusionPipeline, name: str) -> str | None:
    """Exchange the scheduler for the named one, with the model's settings of the present one (betas, shift...).

    Args:
        pipe: The pipeline.
        name: A diffusers class or its short form, where case, spaces and hyphens do not matter; it also keeps the
            present one's spacing. Or the name that other tools use, with the schedule ("Euler a", "DPM++ 2M Karras",
            "dpmpp_2m karras"). Or what our files hold ("EulerDiscreteScheduler:timestep_spacing=trailing").

    Returns:
        One line on what diffusers does otherwise than the tool that the name is from, which is also logged once; None
        where it does the same.

    Raises:
        InputError: When the model takes no such scheduler.
    """
    known = schedulers(pipe)
    sampler = None if _short(name) in known else parse_sampler(name) or find_sampler(name)
    kind = known.get(_short(name)) if sampler is None else _class_for(sampler, known)
    if kind is None:
        raise InputError(f"unknown scheduler {name[:100]!r}: this model takes {', '.join(known)}")
    options = {} if sampler is None else _options(kind, sampler)
    try:
        pipe.scheduler = kind.from_config(pipe.scheduler.config, **options)
    except (ImportError, ValueError, TypeError, NotImplementedError) as error:
        raise InputError(f"scheduler {name[:100]!r} does not work here: {first_line(error)}") from error
    if sampler and sampler.note:
        _warn_once(sampler.note)
    return sampler.note if sampler else None


def sampler_of(scheduler: SchedulerMixin) -> Sampler:
    """The sampler that a scheduler is: its class, and its options wherever they are not the class's own defaults.

    The spacing is always among them, for the model's own would come in its place.
    """
    config, defaults = scheduler.config, _defaults(type(scheduler))
    options = {name: config.get(name, value) for name, value in defaults.items()}
    return Sampler(
        type(scheduler).__name__,
        {
            name: value
            for name, value in options.items()
            if value is not None and (name == "timestep_spacing" or value != defaults[name])
        },
    )


@cache
def _warn_once(note: str) -> None:
    logger.warning("%s", note)


def _class_for(sampler: Sampler, known: dict[str, Any]) -> Any:
    """The class that fits the model: for flow matching its own kind of it."""
    names = {kind.__name__: kind for kind in known.values()}
    return names.get(sampler.kind) or names.get(FLOW.get(sampler.kind, ""))


def _options(kind: Any, sampler: Sampler) -> dict[str, Any]:
    """All of a class's options of sampling: those of the sampler, and the class's defaults for the rest."""
    defaults = _defaults(kind)
    return defaults | {name: value for name, value in sampler.options.items() if name in defaults}


def _defaults(kind: Any) -> dict[str, Any]:
    parameters = inspect.signature(kind.__init__).parameters
    return {name: parameters[name].default for name in SAMPLER_OPTIONS if name in parameters}


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

    Args:
        pipe: The pipeline, which keeps none of a file that is refused.
        loras: Files in safetensors, and the scale of each.

    Raises:
        ModelError: A file cannot be opened.
        UnsupportedModelError: A file fits no part of the model, or some of its layers are not there: it was made for
            another model, and diffusers would apply the rest in silence.
    """
    from diffusers.utils import is_peft_available

    if not hasattr(pipe, "load_lora_weights"):
        raise UnsupportedModelError(f"{type(pipe).__name__} takes no LoRA")
    paths = [Path(path).expanduser() for path, _ in loras]
    layers = {path: sum(map(bool, map(LORA_LAYER.search, check_safetensors(path)))) for path in paths}
    if not is_peft_available():
        raise UnsupportedModelError(f"LoRA files need the package peft: {install('lora')}")
    names = [f"lora_{index}" for index in range(len(loras))]
    for path, name in zip(paths, names, strict=True):
        with opening(path):
            pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name, use_safetensors=True)
        if not any(name in loaded for loaded in pipe.get_list_adapters().values()):
            raise UnsupportedModelError(f"the LoRA {path} fits no part of this model: was it made for another one?")
        if (there := _lora_layers(pipe, name)) < layers[path]:
            pipe.delete_adapters(name)
            raise UnsupportedModelError(
                f"the LoRA {path} fits only {there} of its {layers[path]} layers into this model: it was made for "
                "another one"
            )
    pipe.set_adapters(names, [scale for _, scale in loras])


def _lora_layers(pipe: DiffusionPipeline, name: str) -> int:
    """How many layers of a pipeline a LoRA has come into."""
    parts = [part for part in pipe.components.values() if hasattr(part, "modules")]
    return sum(name in getattr(module, "lora_A", ()) for part in parts for module in part.modules())


def _open_vae(source: str | Path, present: ModelMixin) -> ModelMixin:
    from diffusers import AutoModel

    path = Path(source).expanduser()
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelError(f"{source} is not a VAE: it has no config.json")
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
