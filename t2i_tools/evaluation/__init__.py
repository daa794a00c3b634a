"""Evaluation that survives being killed: manifests, resumable stages, engines, protocol and report."""

from importlib import import_module
from typing import Any

_MODULES = {
    "counts": ("COCO", "COUNTS", "Benchmark", "counts_rows"),
    "items": ("Item", "make_items"),
    "manifest": ("Manifest", "Settings", "read_manifest", "settle"),
    "merging": ("merge",),
    "methods": ("METHODS",),
    "pictures": ("read_pictures", "write_geneval"),
    "protocol": ("Protocol", "read_protocol"),
    "report": ("write_report",),
    "runner": ("forget_errors", "run_shard"),
    "stages": ("Models",),
    "store": ("Store",),
}
_PUBLIC = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PUBLIC[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
