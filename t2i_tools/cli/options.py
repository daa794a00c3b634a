"""The options that every verb which makes images has in common, and what they open."""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from t2i_tools.errors import InputError

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

BUNDLED = "bundled"
PARTS = "Model"
PLUGINS = "Plugins"
DTYPES = ("float32", "float16", "bfloat16")
Verb = TypeVar("Verb", bound=Callable[..., None])
Options = TypeVar("Options")

Negative = Annotated[str | None, typer.Option(metavar="TEXT", help="What to stay away from.")]
ImageSize = Annotated[str | None, typer.Option(metavar="WxH", help="Pixels; the model's own size by default.")]
Steps = Annotated[int | None, typer.Option(help="Denoising steps.")]
Guidance = Annotated[float | None, typer.Option(help="Guidance scale: how closely to follow the prompt.")]
FirstSeed = Annotated[int | None, typer.Option(help="Of the first image, the next have seed+1...; random by default.")]
Fit = Annotated[str, typer.Option(help="crop or snap, for a size that the model cannot make.")]
Judge = Annotated[str, typer.Option(metavar="bundled|FOLDER|FILE|HUB_ID", help="The detector.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON: one object an image.")]
QuietPicture = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no file name.")]
Model = Annotated[
    str,
    typer.Option(
        help="bundled, a folder, a Hub id (owner/name) or one .safetensors checkpoint.", rich_help_panel=PARTS
    ),
]
Config = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|HUB_ID",
        help="Where a checkpoint's configuration lies, to open it offline.",
        rich_help_panel=PARTS,
    ),
]
Lora = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE[:SCALE]", help="LoRA file with its scale; may be repeated.", rich_help_panel=PARTS),
]
Vae = Annotated[
    str | None,
    typer.Option(metavar="FOLDER|HUB_ID|FILE", help="Another VAE than the model's own.", rich_help_panel=PARTS),
]
Scheduler = Annotated[
    str | None, typer.Option(help="ddim, euler, unipc...; a wrong name lists them.", rich_help_panel=PARTS)
]
Offload = Annotated[
    bool, typer.Option("--offload", help="Keep parts off the accelerator while idle.", rich_help_panel=PARTS)
]
VaeTiling = Annotated[
    bool, typer.Option("--vae-tiling", help="Decode large images in tiles, to save memory.", rich_help_panel=PARTS)
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps...; the best there is by default.", rich_help_panel=PARTS)
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(DTYPES)}; by default float32, and bfloat16 on accelerators for models that are not bundled.",
        rich_help_panel=PARTS,
    ),
]
EntropyScaling = Annotated[
    bool,
    typer.Option(
        "--entropy-scaling",
        help="Keep attention as sharp as at the model's own size (Jin et al. 2023).",
        rich_help_panel=PLUGINS,
    ),
]
Native = Annotated[
    str | None,
    typer.Option(
        metavar="WxH", help="The size the model was trained at, where it does not say.", rich_help_panel=PLUGINS
    ),
]
EntropyRule = Annotated[
    str,
    typer.Option(metavar="sqrt-log|log", help="Of entropy scaling: the paper's, or Su's.", rich_help_panel=PLUGINS),
]
EntropyStrength = Annotated[
    float,
    typer.Option(metavar="FLOAT", help="Of entropy scaling: 0 is off, -1 the opposite.", rich_help_panel=PLUGINS),
]
EntropyLayers = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX", help="Entropy scaling in the layers of matching names only.", rich_help_panel=PLUGINS
    ),
]
TwoPass = Annotated[
    bool,
    typer.Option(
        "--two-pass",
        help="Generate near the model's own size, resize, and draw the details anew.",
        rich_help_panel=PLUGINS,
    ),
]
TwoPassStrength = Annotated[
    float | None,
    typer.Option(
        metavar="FLOAT", help="Share of the steps in the second pass; 0.5 by default.", rich_help_panel=PLUGINS
    ),
]
LongPrompts = Annotated[
    str | None,
    typer.Option(
        metavar="stretch|chunk|truncate",
        help="Read all of a long prompt, its weights as in (word:1.3), and BREAK.",
        rich_help_panel=PLUGINS,
    ),
]
LongClip = Annotated[
    str | None,
    typer.Option(
        metavar="bundled|FOLDER|HUB_ID|FILE",
        help="A Long-CLIP for --long-prompts stretch; bundled: the one tuned for the bundled model.",
        rich_help_panel=PLUGINS,
    ),
]
CountTokenFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--count-token",
        metavar="FILE",
        help='A token that t2i count learned; "{count}" in the prompt becomes its word. May be repeated: then '
        '"{apples}" becomes that of the token for apples.',
        rich_help_panel=PLUGINS,
    ),
]
Compare = Annotated[
    bool,
    typer.Option(
        "--compare", help="The same seed without and with the plugins, side by side.", rich_help_panel=PLUGINS
    ),
]


@dataclass(frozen=True)
class ModelOptions:
    """Which pipeline to open, and how; each field is the option of the same name."""

    model: Model = BUNDLED
    config: Config = None
    lora: Lora = None
    vae: Vae = None
    scheduler: Scheduler = None
    offload: Offload = False
    vae_tiling: VaeTiling = False
    device: Device = None
    dtype: Dtype = None

    def loras(self) -> list[tuple[str, float]]:
        """(file, scale) of each --lora."""
        return [parse_lora(text) for text in self.lora or ()]


def with_options(*kinds: type, without: Collection[str] = ()) -> Callable[[Verb], Verb]:
    """Let a verb that ends in `**given` take the fields of dataclasses as options; `pick` makes the dataclasses.

    Typer reads signatures: there they stand behind the verb's own parameters, and before its keyword-only ones.
    """
    options = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=one.type)
        for kind in kinds
        for one in fields(kind)
        if one.name not in without
    ]

    def spell_out(verb: Verb) -> Verb:
        signature = inspect.signature(verb)
        *own, _ = signature.parameters.values()
        last = [one for one in own if one.kind is one.KEYWORD_ONLY]
        verb.__signature__ = signature.replace(parameters=[*own[: len(own) - len(last)], *options, *last])
        return verb

    return spell_out


def pick(kind: type[Options], given: Mapping[str, Any]) -> Options:
    """The dataclass with those of its fields that a verb was given."""
    return kind(**named(kind, given))


def named(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of what a verb was given that are fields of a dataclass."""
    return {one.name: given[one.name] for one in fields(kind) if one.name in given}


def parse_lora(text: str) -> tuple[str, float]:
    """ "FILE:0.8" as (file, scale); the scale is 1 where none is given."""
    file, colon, scale = text.rpartition(":")
    try:
        return (file, float(scale)) if colon and file else (text, 1.0)
    except ValueError:
        return text, 1.0


def open_model(options: ModelOptions) -> "DiffusionPipeline":
    """The pipeline that the options describe, on its device. Raises T2IError."""
    from t2i_tools.loading import open_pipeline, opening, pick_device
    from t2i_tools.parts import use_loras, use_scheduler, use_vae

    silence_libraries()
    device = pick_device(options.device)
    if options.offload and device.type == "cpu":
        raise InputError(
            "--offload moves parts between an accelerator and memory, and this run is on the CPU: leave it out"
        )
    if options.config and not options.model.endswith(".safetensors"):
        raise InputError("--config goes with --model FILE.safetensors; every other model has its own")
    dtype = pick_dtype(options, device)
    if options.model == BUNDLED:
        from t2i_tools.default import load_default

        with opening("the bundled model"):
            pipe = load_default(dtype=dtype)
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


def pick_dtype(options: ModelOptions, device: "torch.device") -> "torch.dtype":
    """The dtype asked for, or else float32 where it is affordable. Raises InputError."""
    import torch

    if options.dtype is not None and options.dtype not in DTYPES:
        raise InputError(f"unknown dtype {options.dtype!r}: choose {', '.join(DTYPES)}")
    small = options.model == BUNDLED or device.type == "cpu"
    return getattr(torch, options.dtype or ("float32" if small else "bfloat16"))


def silence_libraries() -> None:
    """Their loading bars, notices and logged errors would bury our one line."""
    import logging
    import warnings

    import diffusers.utils.logging
    import huggingface_hub.utils.logging
    import transformers.utils.logging

    warnings.simplefilter("ignore")
    for library in (diffusers, huggingface_hub, transformers):
        library.utils.logging.set_verbosity(logging.CRITICAL)
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
