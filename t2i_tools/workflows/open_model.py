"""Opening a pipeline by options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from t2i_tools.errors import InputError, debugging
from t2i_tools.models.dtypes import dtype_name

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

BUNDLED = "bundled"
BUNDLED_FEW_STEPS = "bundled-few-steps"
BUNDLED_FORMS = (BUNDLED, BUNDLED_FEW_STEPS)
MODEL_HELP = (
    "The bundled model, its four-step form (bundled-few-steps), a diffusers folder, a .safetensors checkpoint or a "
    "Hub id (owner/name)."
)
DEVICE_HELP = "cpu, cuda, cuda:1, mps...; the best there is by default."
DTYPE_HELP = (
    "Precision, also as float32, float16, bfloat16; fp32 by default, and bf16 on accelerators for models that are not "
    "bundled."
)


@dataclass(frozen=True)
class ModelOptions:
    """Which pipeline to open, and how.

    Attributes:
        model: "bundled", "bundled-few-steps", a folder, a Hub id or one .safetensors checkpoint.
        config: A folder or Hub id with a checkpoint's configuration.
        lora: LoRA files, each with an optional ":SCALE".
        vae: Another VAE: a folder, a Hub id or a file.
        scheduler: A scheduler's or sampler's name.
        offload: Whether parts stay off the accelerator while idle.
        vae_tiling: Whether large images are decoded in tiles.
        device: "cpu", "cuda", "cuda:1", "mps"...; the best there is if None.
        dtype: "fp32", "fp16" or "bf16", kept as torch's names; float32 where it is affordable if None.
        few_steps: The same as choosing the model "bundled-few-steps"; reset to False once that is chosen.
    """

    model: str = BUNDLED
    config: str | None = None
    lora: list[str] | None = None
    vae: str | None = None
    scheduler: str | None = None
    offload: bool = False
    vae_tiling: bool = False
    device: str | None = None
    dtype: str | None = None
    few_steps: bool = False

    def __post_init__(self) -> None:
        if self.few_steps:
            if self.model not in BUNDLED_FORMS:
                raise InputError(
                    f"--few-steps works with the bundled model only, not with {self.model}: pass a few-step LoRA "
                    "made for that model with --lora, and set --steps and --guidance as that LoRA requires"
                )
            object.__setattr__(self, "model", BUNDLED_FEW_STEPS)
            object.__setattr__(self, "few_steps", False)  # one model has one set of options
        if self.dtype is not None:
            object.__setattr__(self, "dtype", dtype_name(self.dtype))

    def loras(self) -> list[tuple[str, float]]:
        """The LoRA files with their scales."""
        return [parse_lora(text) for text in self.lora or ()]


def parse_lora(text: str) -> tuple[str, float]:
    """ "FILE:0.8" as (file, scale); the scale is 1 where none is given."""
    file, colon, scale = text.rpartition(":")
    try:
        return (file, float(scale)) if colon and file else (text, 1.0)
    except ValueError:
        return text, 1.0


def open_model(options: ModelOptions) -> DiffusionPipeline:
    """The pipeline that the options describe, on its device. Raises T2IError."""
    from t2i_tools.models.loading import check_safetensors, open_pipeline, opening, pick_device
    from t2i_tools.models.parts import use_loras, use_scheduler, use_vae

    silence_libraries()
    device = pick_device(options.device)
    if options.offload and device.type == "cpu":
        raise InputError(
            "--offload moves parts between an accelerator and memory, and this run is on the CPU: leave it out"
        )
    if options.config and not options.model.endswith(".safetensors"):
        raise InputError("--config goes with --model FILE.safetensors; every other model has its own")
    for file, _ in options.loras():  # complains before a large model is opened
        check_safetensors(Path(file).expanduser())
    if options.vae and options.vae.endswith(".safetensors"):
        check_safetensors(Path(options.vae).expanduser())
    dtype = pick_dtype(options, device)
    if options.model in BUNDLED_FORMS:
        from t2i_tools.bundled import load_bundled

        with opening("the bundled model"):
            pipe = load_bundled(dtype=dtype, few_steps=options.model == BUNDLED_FEW_STEPS)
    else:
        pipe = open_pipeline(options.model, config=options.config, dtype=dtype)
    if options.scheduler:
        use_scheduler(pipe, options.scheduler)
    if options.vae:
        use_vae(pipe, options.vae)
    if options.lora:
        use_loras(pipe, options.loras())
    if options.vae_tiling:
        if not hasattr(getattr(pipe, "vae", None), "enable_tiling"):
            raise InputError(f"--vae-tiling: {type(pipe).__name__} has no VAE that works in tiles")
        pipe.vae.enable_tiling()
    with opening(f"{options.model} on {device}"):
        if options.offload:
            pipe.enable_model_cpu_offload(device=device)
        else:
            pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pick_dtype(options: ModelOptions, device: torch.device) -> torch.dtype:
    """The dtype asked for, or else float32 where it is affordable."""
    import torch

    small = options.model in BUNDLED_FORMS or device.type == "cpu"
    return getattr(torch, options.dtype or ("float32" if small else "bfloat16"))


def silence_libraries() -> None:
    """Their loading bars, notices and logged errors would bury our one line; `--debug` shows them.

    Warnings are the caller's: a server shows them, the shell does not.
    """
    import logging

    import diffusers.utils.logging
    import huggingface_hub.utils.logging
    import transformers.utils.logging

    if debugging():
        return
    for library in (diffusers, huggingface_hub, transformers):
        library.utils.logging.set_verbosity(logging.CRITICAL)
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
