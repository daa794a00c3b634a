"""The options that verbs have in common, and the table from a field of the workflows' dataclasses to its option."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from t2i_tools.counting.methods import METHODS
from t2i_tools.errors import InputError
from t2i_tools.images.sizes import FITS
from t2i_tools.models.dtypes import DTYPES, SHORT_DTYPES
from t2i_tools.workflows.choices import ENTROPY_RULES, READINGS, alike, number_or_text, one_of
from t2i_tools.workflows.detectors import COUNTER, JUDGES
from t2i_tools.workflows.open_model import DEVICE_HELP, DTYPE_HELP, MODEL_HELP
from t2i_tools.workflows.server_options import flag_of

PARTS = "Model"
DETECTOR = "NAME|FOLDER|FILE|HUB_ID"
PLUGINS = "Plugins"
SEARCH = "Search"
Verb = TypeVar("Verb", bound=Callable[..., None])
Options = TypeVar("Options")


def choice(what: str, names: Sequence[str], **more: Any) -> Any:
    """An option that takes one of the names; "best-of" is read as "best_of", and shells complete them."""
    more.setdefault("metavar", "|".join(names))
    return typer.Option(
        callback=lambda value: value and one_of(what, value, names),
        autocompletion=lambda incomplete: completions(names, incomplete),
        **more,
    )


def check_fit_acts(fit: str, sized: bool) -> None:
    """Raise InputError for a --fit where no size is asked for: every model can make its own."""
    if fit != "crop" and not sized:
        raise InputError(
            f"--fit {fit} does nothing without a size: it says what to do at one that the model cannot make"
        )


def completions(names: Sequence[str], incomplete: str) -> list[str]:
    """The names that begin so."""
    return [name for name in names if alike(name).startswith(alike(incomplete))]


def flag(name: str, text: str, *more: str, **options: Any) -> Any:
    """An option without a value."""
    return typer.Option(name, *more, metavar="", help=text, **options)


Negative = Annotated[str | None, typer.Option(metavar="TEXT", help="Negative prompt: what the image should not show.")]
ImageSize = Annotated[
    str | None, typer.Option(metavar="WxH", help="Width x height in pixels; the model's own size by default.")
]
Sizes = Annotated[str | None, typer.Option(metavar="WxH,WxH...", help="Sizes; the model's own by default.")]
Steps = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Denoising steps; as many as the model takes by default.")
]
Guidance = Annotated[
    float | None,
    typer.Option(metavar="X", help="Guidance scale: how closely to follow the prompt; the model's own by default."),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", "-s", metavar="N", help="Seed; with several images the first one's. Random by default."),
]
Number = Annotated[int, typer.Option("--number", "-n", metavar="N", min=1, help="Images per prompt.")]
Fit = Annotated[
    str,
    choice("fit", FITS, help="At a size that the model cannot make: crop a larger image, or snap to the nearest size."),
]
PromptsFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help=".txt (one prompt per line), .csv or .jsonl (one object per line); its columns override the options.",
    ),
]
JsonOption = flag("--json", "Print the result as JSON.")
AsJson = Annotated[bool, JsonOption]
Quiet = Annotated[bool, flag("--quiet", "Print only errors, and what --json prints.", "-q")]
Label = Annotated[str | None, typer.Option(metavar="CLASS", help="Count the objects of this class in each image.")]
Threshold = Annotated[
    float | None,
    typer.Option(metavar="X", min=0, max=1, help="Least score of an object; the detector's own by default."),
]
Judge = Annotated[
    str | None,
    typer.Option(
        metavar=DETECTOR,
        help=f"The detector that counts the objects and steers nothing: {' or '.join(JUDGES)}, a file, folder or Hub "
        "id.",
    ),
]
Clip = Annotated[
    str | None,
    typer.Option(
        metavar="bundled|FOLDER|HUB_ID|none",
        help="The CLIP that scores each image with its prompt; the bundled one for the bundled model by default.",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="bundled|FOLDER|FILE|HUB_ID",
        help=MODEL_HELP,
        rich_help_panel=PARTS,
    ),
]
Config = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|HUB_ID",
        help="The configuration of a .safetensors checkpoint: a folder of the same family; then no Hub is needed.",
        rich_help_panel=PARTS,
    ),
]
Lora = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE[:SCALE]", help="A LoRA in safetensors and its scale; may be repeated.", rich_help_panel=PARTS
    ),
]
Vae = Annotated[
    str | None,
    typer.Option(metavar="FOLDER|FILE|HUB_ID", help="A VAE to use instead of the model's own.", rich_help_panel=PARTS),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The sampler: euler, ddim, unipc, 'DPM++ 2M Karras'...; a wrong name lists those of the model.",
        rich_help_panel=PARTS,
    ),
]
Offload = Annotated[
    bool,
    flag(
        "--offload",
        "Keep the parts of the model in main memory until they are used; takes less memory of the accelerator.",
        rich_help_panel=PARTS,
    ),
]
VaeTiling = Annotated[
    bool, flag("--vae-tiling", "Decode large images in tiles, to save memory.", rich_help_panel=PARTS)
]
Device = Annotated[
    str | None,
    typer.Option(metavar="NAME", help=DEVICE_HELP, rich_help_panel=PARTS),
]
Dtype = Annotated[
    str | None,
    choice(
        "dtype",
        (*SHORT_DTYPES, *DTYPES),
        metavar="fp32|fp16|bf16",
        help=DTYPE_HELP,
        rich_help_panel=PARTS,
    ),
]
FewSteps = Annotated[
    bool,
    flag(
        "--few-steps",
        "Use the bundled model's four-step form, which needs a tenth of the denoiser passes. The same as --model "
        "bundled-few-steps.",
        rich_help_panel=PARTS,
    ),
]
EntropyScaling = Annotated[
    bool,
    flag(
        "--entropy-scaling",
        "Keep attention as sharp as at the model's own size (Jin et al. 2023).",
        rich_help_panel=PLUGINS,
    ),
]
Native = Annotated[
    str | None,
    typer.Option(
        metavar="WxH",
        help="The size that the model was trained at; by default what its configuration says.",
        rich_help_panel=PLUGINS,
    ),
]
EntropyRule = Annotated[
    str,
    choice(
        "entropy rule",
        ENTROPY_RULES,
        help="The gain of entropy scaling: sqrt_log (Jin et al. 2023) or log (Su 2022).",
        rich_help_panel=PLUGINS,
    ),
]
EntropyStrength = Annotated[
    str,
    typer.Option(
        metavar="X|auto",
        callback=number_or_text,
        help="Strength of entropy scaling: 0 is off, 1 the paper's, -1 its inverse, auto 32 below "
        "the native size, 1 above.",
        rich_help_panel=PLUGINS,
    ),
]
EntropyLayers = Annotated[
    str | None,
    typer.Option(metavar="REGEX", help="Scale only the attention layers whose names match.", rich_help_panel=PLUGINS),
]
TwoPass = Annotated[
    bool,
    flag(
        "--two-pass",
        "Generate near the model's own size, enlarge, and redraw the details.",
        rich_help_panel=PLUGINS,
    ),
]
TwoPassStrength = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        min=0,
        max=1,
        help="Share of the steps in the second pass; 0.5 by default.",
        rich_help_panel=PLUGINS,
    ),
]
DeepShrink = Annotated[
    bool,
    flag(
        "--deep-shrink",
        "Shrink a UNet's deep feature maps to native size in the first steps, so that larger images repeat less.",
        rich_help_panel=PLUGINS,
    ),
]
DeepShrinkShare = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        min=0,
        max=1,
        help="Share of the steps, starting with the first, in which --deep-shrink acts; 0.5 by default.",
        rich_help_panel=PLUGINS,
    ),
]
DeepShrinkLevel = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Downsampler whose output --deep-shrink shrinks, counted from 1; 1 by default.",
        rich_help_panel=PLUGINS,
    ),
]
LongPrompts = Annotated[
    str | None,
    choice(
        "way to read long prompts",
        READINGS,
        help="Read the whole of a long prompt, its weights as in (word:1.3), and BREAK.",
        rich_help_panel=PLUGINS,
    ),
]
LongClip = Annotated[
    str | None,
    typer.Option(
        metavar="bundled|FOLDER|FILE|HUB_ID",
        help="A Long-CLIP for --long-prompts stretch; bundled: the one tuned for the bundled model.",
        rich_help_panel=PLUGINS,
    ),
]
EmbeddingFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--embedding",
        metavar="FILE",
        help="A textual inversion in safetensors, of AUTOMATIC1111 or diffusers; its word is the file's name unless "
        "the file says another. May be repeated.",
        rich_help_panel=PLUGINS,
    ),
]
CountTokenFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--count-token",
        metavar="FILE",
        help='A token that t2i count learned; its word replaces "{count}" in the prompt. May be repeated: then the '
        'token for apples replaces "{apples}".',
        rich_help_panel=PLUGINS,
    ),
]
Compare = Annotated[
    bool,
    flag(
        "--compare",
        "Show the same seed without and with the plugins, side by side in one image.",
        rich_help_panel=PLUGINS,
    ),
]
Budget = Annotated[
    float,
    typer.Option(
        metavar="X", min=1, help="Compute per image, in generations of a plain image.", rich_help_panel=SEARCH
    ),
]
Method = Annotated[
    str,
    choice(
        "method",
        tuple(METHODS),
        metavar="NAME",
        help="How to search: " + "; ".join(f"{name}: {what}" for name, what in METHODS.items()) + ".",
        rich_help_panel=SEARCH,
    ),
]
CounterName = Annotated[
    str | None,
    typer.Option(
        metavar=DETECTOR,
        help=f"The detector whose counts steer the search; {COUNTER} for the bundled model by default.",
        rich_help_panel=SEARCH,
    ),
]
DetectorClass = Annotated[
    str | None,
    typer.Option(
        "--label", metavar="CLASS", help="The class as the detector calls it, if not CLASS.", rich_help_panel=SEARCH
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Learning rate of the token, in units of a typical embedding's size; for token and random_walk.",
        rich_help_panel=SEARCH,
    ),
]
GradSteps = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Denoising steps that the gradient goes through.", rich_help_panel=SEARCH),
]
Checkpointing = Annotated[
    bool,
    flag(
        "--checkpointing",
        "Compute activations again for the gradient: less memory, more time.",
        rich_help_panel=SEARCH,
    ),
]

EarlyLook = Annotated[
    bool,
    flag(
        "--early-look",
        "Count the objects half-way and end an image that has no chance; pays off with best_of, from 8 steps on.",
        rich_help_panel=SEARCH,
    ),
]
KeepImage = Annotated[
    bool,
    flag(
        "--keep-image",
        "Stay on the first seed: change its image, never replace it. Only with the default method.",
        rich_help_panel=SEARCH,
    ),
]

OPTIONS: dict[str, Any] = {
    "model": Model,
    "config": Config,
    "lora": Lora,
    "vae": Vae,
    "scheduler": Scheduler,
    "offload": Offload,
    "vae_tiling": VaeTiling,
    "device": Device,
    "dtype": Dtype,
    "few_steps": FewSteps,
    "entropy_scaling": EntropyScaling,
    "native": Native,
    "compare": Compare,
    "entropy_rule": EntropyRule,
    "entropy_strength": EntropyStrength,
    "entropy_layers": EntropyLayers,
    "two_pass": TwoPass,
    "two_pass_strength": TwoPassStrength,
    "deep_shrink": DeepShrink,
    "deep_shrink_share": DeepShrinkShare,
    "deep_shrink_level": DeepShrinkLevel,
    "long_prompts": LongPrompts,
    "long_clip": LongClip,
    "count_token": CountTokenFiles,
    "embedding": EmbeddingFiles,
    "budget": Budget,
    "method": Method,
    "counter": CounterName,
    "label": DetectorClass,
    "lr": LearningRate,
    "grad_steps": GradSteps,
    "checkpointing": Checkpointing,
    "early_look": EarlyLook,
    "keep_image": KeepImage,
}


def with_options(*kinds: type, without: Collection[str] = ()) -> Callable[[Verb], Verb]:
    """Give a command that ends in `**option_values` the fields of dataclasses as options; `pick` reads them back.

    Typer reads the signature: the options come after the command's own parameters and before its keyword-only ones.
    """
    options = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=option_of(one))
        for kind in kinds
        for one in fields(kind)
        if one.name not in without
    ]

    def spell_out(verb: Verb) -> Verb:
        signature = inspect.signature(verb)
        *own, _ = signature.parameters.values()
        last = [one for one in own if one.kind is one.KEYWORD_ONLY]
        shown = signature.replace(parameters=[*own[: len(own) - len(last)], *options, *last])
        setattr(verb, "__signature__", shown)  # noqa: B010  # a function has such an attribute once it is set
        return verb

    return spell_out


def option_of(one: Field) -> Any:
    """The option of a dataclass's field: from the table here, or by what the field says of itself."""
    about = one.metadata
    if not about or about.get("shared"):
        return OPTIONS[one.name]
    numbers = {bound: about[name] for bound, name in (("min", "least"), ("max", "most")) if name in about}
    shown: dict[str, Any] = {"metavar": about["metavar"], "help": about["help"], "rich_help_panel": about.get("panel")}
    short = [about["short"]] if "short" in about else []
    return Annotated[one.type, typer.Option(flag_of(one), *short, **{**shown, **numbers})]


def pick(kind: type[Options], option_values: Mapping[str, Any]) -> Options:
    """Return the dataclass built from a command's options."""
    return kind(**pick_values(kind, option_values))


def pick_values(kind: type, option_values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a command's options that are fields of a dataclass."""
    return {one.name: option_values[one.name] for one in fields(kind) if one.name in option_values}
