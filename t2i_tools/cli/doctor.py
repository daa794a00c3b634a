"""`t2i doctor`: what works on this machine, what is missing, and the command that installs it."""

import json
import platform
import re
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t2i_tools import __version__
from t2i_tools.errors import first_line

if TYPE_CHECKING:
    import torch

CORE = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "PIL", "typer", "rich")
EXTRAS = ("count", "app", "metrics", "lora", "xformers")
PLUGINS = ("entropy", "longclip", "padding", "counting")
MODEL_PARTS = ("clip", "scheduler", "tokenizer", "unet", "vae")
EMOJI_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False) -> None:
    """Say what works here, what is missing, and the command that installs it."""
    report = examine()
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        print_report(report)
    if report["broken"]:
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
            found.append({"what": f"extra {extra}", "why": f"needs {', '.join(lacking)}", "fix": install(extra)})
    if not declared:
        found.append({"what": "t2i-tools", "why": "runs from a checkout and is not installed", "fix": "pip install ."})
    return found


def missing_system() -> list[dict[str, str]]:
    """Libraries and fonts of the system that something installed here wants."""
    found = []
    why = import_problem("cv2") if find_spec("cv2") else None
    if why:
        fix = "apt-get install libgl1 libglib2.0-0"
        found.append({"what": "a system library of OpenCV, which ultralytics uses", "why": why, "fix": fix})
    if not EMOJI_FONT.exists():
        why = "only to draw the sprites anew for a training"
        found.append({"what": "Noto Color Emoji", "why": why, "fix": "apt-get install fonts-noto-color-emoji"})
    return found


def devices() -> list[dict[str, Any]]:
    """The CPU and every accelerator that holds a tensor, the one taken by default last."""
    import torch

    found: list[dict[str, Any]] = [{"device": "cpu", "threads": torch.get_num_threads()}]
    kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    for index in range(torch.accelerator.device_count() if kind else 0):
        name = f"{kind.type}:{index}"
        entry: dict[str, Any] = {"device": name}
        if kind.type == "cuda":
            properties = torch.cuda.get_device_properties(index)
            entry |= {"name": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}
        found.append(
            entry | ({"problem": why} if (why := _problem(lambda n=name: torch.zeros(1, device=n).item())) else {})
        )
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
                found.append(_tried(label, device, lambda b=backend, run=native: run(b)))
    rows = query.transpose(1, 2)  # (B, N, heads, d), on the best device
    for name, attend in external_attention().items():
        found.append(_tried(name, rows.device, lambda attend=attend, rows=rows: attend(rows)))
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


def import_problem(module: str) -> str | None:
    """Why a module cannot be imported, in a line; None when it can."""
    return _problem(lambda: import_module(module))


def install(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 't2i-tools[{extra}]'"


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
    """Why a call fails, in a line: of torch's attention the warnings tell more than the error."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            run()
        except ImportError as error:
            absent = isinstance(error, ModuleNotFoundError) and error.name
            return f"{absent} is not installed" if absent else first_line(error)
        except Exception as error:  # whatever a broken package raises is what is to be told
            told = [first_line(w.message) for w in said if issubclass(w.category, UserWarning)]
            reasons = [re.sub(r" ?\(Triggered internally.*", "", text) for text in told]
            return next((text for text in reasons if "not" in text and "was" not in text), first_line(error))
    return None


def _split(requirement: str) -> tuple[str, str | None]:
    """ "gradio>=6.0; extra == 'app'" as ("gradio", "app")."""
    name = re.match(r"[\w.-]+", requirement).group()
    extra = re.search(r"""extra == ["'](\w+)["']""", requirement)
    return name, extra and extra.group(1)


def _satisfied(requirement: str) -> bool:
    from packaging.requirements import Requirement

    wanted = Requirement(requirement.split(";")[0])
    present = _version(wanted.name)
    return present is not None and wanted.specifier.contains(present, prereleases=True)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _weights(part: str) -> Path:
    return Path(__file__).parents[1] / "default" / "weights" / part
