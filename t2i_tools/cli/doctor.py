"""`t2i doctor`: what works on this machine, what is missing, and the command that installs it."""

import json
import platform
import re
import warnings
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t2i_tools._version import __version__
from t2i_tools.cli import options
from t2i_tools.errors import InputError, first_line, install_command
from t2i_tools.images.sizes import parse_size
from t2i_tools.workflows.count import usual_settings
from t2i_tools.workflows.detectors import COUNTER
from t2i_tools.workflows.open_model import BUNDLED_FORMS, ModelOptions, open_model
from t2i_tools.workflows.outputs import check_folder

if TYPE_CHECKING:
    import torch

CORE = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "PIL", "typer", "rich")
# Distribution -> another one of the same modules, which will do as well.
ALTERNATIVES = {"ultralytics-opencv-headless": "ultralytics"}
EXTRAS = ("count", "app", "metrics", "lora", "xformers")
PLUGINS = ("entropy", "shrink", "longclip", "padding", "counting")
MODEL_PARTS = ("clip", "scheduler", "tokenizer", "unet", "vae")
DETECTORS = {  # and the package that each kind needs
    "YOLO, YOLO-World, YOLOE": "ultralytics",
    "RT-DETR, D-FINE, DEIMv2, RF-DETR, LW-DETR, YOLOS": "transformers",
    "OWLv2, OWL-ViT, Grounding DINO": "torchvision",
    "DETR, Conditional, Deformable and DAB-DETR, OmDet-Turbo": "timm",
}
TRIAL_STEPS = 4  # enough to see whether a plugin acts
EMOJI_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")


@options.with_options(ModelOptions)
def doctor(
    attempt: Annotated[
        bool, options.flag("--try", "Try every plugin on the model of --model, and say which work on it.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="With --try: write card.json, card.html and the images there."
        ),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            metavar=options.DETECTOR,
            help="With --try: the detector that counts the objects drawn, as in t2i detect.",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS", help="With --try: the class that is drawn and counted, singular; cat by default."
        ),
    ] = None,
    number: Annotated[
        int | None,
        typer.Option("--number", "-n", metavar="N", min=1, help="With --try: images per number word; 3 by default."),
    ] = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    native: options.Native = None,
    as_json: options.AsJson = False,
    **option_values: Any,
) -> None:
    """Say what works on this machine and what is missing; with --try, which plugins work on a model."""
    chosen = options.pick(ModelOptions, option_values)
    if attempt:
        size = native and parse_size(native)
        settings = {"steps": steps, "guidance": guidance, "native": size, "label": label or "cat"}
        ours = chosen.model in BUNDLED_FORMS and import_problem("ultralytics") is None
        name = detector or (COUNTER if ours else None)
        if name is None and (label, number) != (None, None):
            raise InputError("--label and --number say what a detector is to count: add --detector")
        _try_model(chosen, name, range(number or 3), output, as_json, settings)
        return
    usual = ModelOptions()
    names = [one.name for one in fields(chosen) if getattr(chosen, one.name) != getattr(usual, one.name)]
    others: dict[str, Any] = {"output": output, "detector": detector, "label": label, "number": number}
    others |= {"native": native, "steps": steps, "guidance": guidance}
    if names := [*names, *(name for name, value in others.items() if value is not None)]:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in names)
        raise InputError(f"{flags} go{'es' * (len(names) == 1)} with --try, which tries every plugin on a model")
    report = examine()
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        print_report(report)
    if report["broken"]:
        raise typer.Exit(1)


def _try_model(
    chosen: ModelOptions,
    detector: str | None,
    seeds: range,
    output: Path | None,
    as_json: bool,
    settings: dict[str, Any],
) -> None:
    from t2i_tools.workflows.detectors import open_detector
    from t2i_tools.workflows.model_check import check_model

    if output is not None:
        check_folder(output, ("card.json",))
    counter = open_detector(detector, [settings["label"]], None, chosen.device) if detector else None
    pipe = open_model(chosen)
    usual = usual_settings(pipe, chosen.model) if chosen.model in BUNDLED_FORMS or counter else {"steps": TRIAL_STEPS}
    settings = usual | {key: value for key, value in settings.items() if value is not None}
    show = None if as_json else lambda check: print(check, flush=True)
    card = check_model(pipe, counter=counter, seeds=seeds, on_check=show, **settings)
    if output is not None:
        card.save(output)
    if as_json:
        print(json.dumps(card.to_dict(), indent=2))
    elif output is not None:
        print(output / "card.html")
    if card.failed:
        raise typer.Exit(1)


def examine() -> dict[str, Any]:
    """The whole report, ready for JSON. `broken` lists what keeps the core from running; empty when all is well."""
    broken = [f"{name}: {why}" for name in CORE if (why := import_problem(name))]
    broken += [f"bundled model: {part} is not there" for part in MODEL_PARTS if not _weights(part).is_dir()]
    has_torch = import_problem("torch") is None
    return {
        "t2i-tools": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": installed_versions(requirements()),
        "devices": devices() if has_torch else [],
        "attention": attention_backends() if has_torch else [],
        "plugins": plugin_families(),
        "detectors": detector_kinds(),
        "missing": [*missing_extras(requirements()), *missing_system()],
        "broken": broken,
    }


def requirements() -> list[str]:
    """What this installation declares to need, as in "ultralytics>=8.4; extra == 'count'"; [] when not installed."""
    try:
        return requires("t2i-tools") or []
    except PackageNotFoundError:
        return []


def installed_versions(declared: list[str]) -> dict[str, str | None]:
    """Version of each declared package but the test's, None where it is absent; the core's when none is declared."""
    wanted = [package for package, extra in map(_split, declared) if extra in (None, *EXTRAS)]
    names = wanted or ["pillow" if name == "PIL" else name for name in CORE]
    return {name: _version(name) for name in dict.fromkeys(names) if name != "t2i-tools"}


def missing_extras(declared: list[str]) -> list[dict[str, str]]:
    """The extras of which a package is absent or too old, with the command that installs it."""
    found = []
    for extra in EXTRAS:
        lacking = [text.split(";")[0].strip() for text in declared if _split(text)[1] == extra and not _satisfied(text)]
        if lacking:
            why = f"needs {', '.join(lacking)}; run the command in your clone of t2i-tools"
            found.append({"what": f"extra {extra}", "why": why, "fix": install_command(extra)})
    if not declared:
        found.append({"what": "t2i-tools", "why": "runs from a checkout and is not installed", "fix": "pip install ."})
    return found


def missing_system() -> list[dict[str, str]]:
    """Libraries and fonts of the system that something installed here wants."""
    found = []
    found += two_opencvs()
    why = import_problem("cv2") if find_spec("cv2") else None
    if why and not found:
        fix = "pip uninstall --yes ultralytics opencv-python && pip install ultralytics-opencv-headless"
        found.append({"what": "a system library of OpenCV, which ultralytics uses", "why": why, "fix": fix})
    if not EMOJI_FONT.exists():
        why = "only to draw the sprites anew for a training"
        found.append({"what": "Noto Color Emoji", "why": why, "fix": "apt-get install fonts-noto-color-emoji"})
    return found


def two_opencvs() -> list[dict[str, str]]:
    """Two distributions that install into one folder, of which the last one installed wins."""
    pairs = (("ultralytics", "ultralytics-opencv-headless"), ("opencv-python", "opencv-python-headless"))
    both = [f"{one} and {other}" for one, other in pairs if _version(one) and _version(other)]
    if not both:
        return []
    names = " ".join(name for pair in pairs for name in pair if _version(name))
    fix = f"pip uninstall --yes {names} && pip install ultralytics-opencv-headless"
    return [{"what": f"one of two: {' and '.join(both)}", "why": "they overwrite each other's files", "fix": fix}]


def _use(device: str) -> None:
    import torch

    torch.zeros(1, device=device).item()


def devices() -> list[dict[str, Any]]:
    """The CPU and every accelerator that holds a tensor, the one taken by default last."""
    import torch

    found: list[dict[str, Any]] = [{"device": "cpu", "threads": torch.get_num_threads()}]
    kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    for index in range(torch.accelerator.device_count() if kind else 0):
        name = f"{kind.type if kind else ''}:{index}"
        entry: dict[str, Any] = {"device": name}
        if name.startswith("cuda"):
            properties = torch.cuda.get_device_properties(index)
            entry |= {"name": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}
        found.append(entry | ({"problem": why} if (why := _problem(partial(_use, name))) else {}))
    return found


def attention_backends() -> list[dict[str, Any]]:
    """Each way to compute attention, tried on a small tensor: its name, device, and why it does not work, if so."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    found = []
    for device in filter(None, (torch.device("cpu"), accelerator)):
        dtype = torch.float32 if device.type == "cpu" else torch.float16
        query = torch.zeros(1, 2, 64, 32, device=device, dtype=dtype)  # (B, heads, N, d)

        def native(backend: SDPBackend, query: "torch.Tensor" = query) -> None:
            with sdpa_kernel(backend):
                torch.nn.functional.scaled_dot_product_attention(query, query, query)

        for name, backend in SDPBackend.__members__.items():
            if backend not in (SDPBackend.ERROR, SDPBackend.OVERRIDEABLE):
                label = "sdpa " + name.removesuffix("_ATTENTION").lower()
                found.append(_tried(label, device, partial(native, backend)))
    rows = query.transpose(1, 2)  # (B, N, heads, d), on the best device
    for name, attend in external_attention().items():
        found.append(_tried(name, rows.device, partial(attend, rows)))
    return found


def external_attention() -> dict[str, Callable[["torch.Tensor"], Any]]:
    """Attention of other packages: functions of (B, N, heads, d) that raise where they are absent or do not work."""

    def xformers(x: "torch.Tensor") -> Any:
        return import_module("xformers.ops").memory_efficient_attention(x, x, x)

    def flash(x: "torch.Tensor") -> Any:
        return import_module("flash_attn").flash_attn_func(x, x, x)

    def sage(x: "torch.Tensor") -> Any:
        return import_module("sageattention").sageattn(x, x, x, tensor_layout="NHD")

    return {"xformers": xformers, "flash_attn": flash, "sageattention": sage}


def plugin_families() -> dict[str, list[str]]:
    """The model families that each plugin of this installation says it supports."""
    names = [name for name in PLUGINS if find_spec(f"t2i_tools.{name}")]
    present = [name for name in names if import_problem(f"t2i_tools.{name}") is None]
    families = {name: getattr(import_module(f"t2i_tools.{name}"), "FAMILIES", ()) for name in present}
    return {name: list(supported) for name, supported in families.items() if supported}


def detector_kinds() -> list[dict[str, Any]]:
    """The kinds of detectors, whether they can be opened here, and if not why and what installs what they need."""
    found: list[dict[str, Any]] = []
    for kinds, package in DETECTORS.items():
        why = import_problem(package)
        fix = install_command("count") if package == "ultralytics" else f"pip install {package}"
        found.append({"detectors": kinds, "works": why is None} | ({"why": why, "fix": fix} if why else {}))
    return found


def import_problem(module: str) -> str | None:
    """Why a module cannot be imported, in a line; None when it can."""
    return _problem(lambda: import_module(module))


def print_report(report: dict[str, Any]) -> None:
    """The report as tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, emoji=False, highlight=False)
    console.print(f"t2i-tools {report['t2i-tools']}, Python {report['python']}, {report['platform']}\n")
    versions = Table("package", "version", box=None)
    for name, number in report["versions"].items():
        versions.add_row(name, number or "-")
    attention = Table("attention", "device", "works", "why not", box=None)
    for entry in report["attention"]:
        attention.add_row(entry["backend"], entry["device"], "yes" if entry["works"] else "no", entry.get("why", ""))
    console.print(versions)
    for entry in report["devices"]:
        console.print(
            "\ndevice", ", ".join(f"{value}" if key == "device" else f"{key} {value}" for key, value in entry.items())
        )
    console.print()
    console.print(attention)
    for name, families in report["plugins"].items():
        console.print(f"\n{name} supports {', '.join(families)}")
    for entry in report["detectors"]:
        state = "work" if entry["works"] else f"do not work: {entry['why']}\n  {entry['fix']}"
        console.print(f"\ndetectors {entry['detectors']}: {state}", soft_wrap=True)
    for entry in report["missing"]:
        console.print(f"\nmissing: {entry['what']} ({entry['why']})\n  {entry['fix']}", soft_wrap=True)
    for line in report["broken"]:
        console.print(f"\nbroken: {line}", soft_wrap=True)
    if not report["broken"]:
        console.print("\nThe core works.")


def _tried(backend: str, device: "torch.device", run: Callable[[], Any]) -> dict[str, Any]:
    why = _problem(run)
    return {"backend": backend, "device": str(device), "works": why is None} | ({"why": why} if why else {})


def _problem(run: Callable[[], Any]) -> str | None:
    """Why a call fails, in a line: of torch's attention the warnings say more than the error."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            run()
        except ImportError as error:
            absent = isinstance(error, ModuleNotFoundError) and error.name
            return f"{absent} is not installed" if absent else first_line(error)
        except Exception as error:  # whatever a broken package raises is the answer
            messages = [first_line(Warning(w.message)) for w in said if issubclass(w.category, UserWarning)]
            reasons = [re.sub(r" ?\(Triggered internally.*", "", text) for text in messages]
            return next((text for text in reasons if "not" in text and "was" not in text), first_line(error))
    return None


def _split(requirement: str) -> tuple[str, str | None]:
    """ "gradio>=6.0; extra == 'app'" as ("gradio", "app")."""
    name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
    extra = re.search(r"""extra == ["'](\w+)["']""", requirement)
    return name, extra and extra.group(1)


def _satisfied(requirement: str) -> bool:
    from packaging.requirements import Requirement

    wanted = Requirement(requirement.split(";")[0])
    present = _version(wanted.name) or _version(ALTERNATIVES.get(wanted.name, wanted.name))
    return present is not None and wanted.specifier.contains(present, prereleases=True)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _weights(part: str) -> Path:
    return Path(__file__).parents[1] / "default" / "weights" / part
