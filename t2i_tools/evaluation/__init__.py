"""Evaluation that survives being killed: manifests, resumable stages, engines, protocol and report."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and type checkers see of the names below
    from t2i_tools.evaluation.count_benchmark import (
        COCO as COCO,
        COUNTS as COUNTS,
        Benchmark as Benchmark,
        counts_rows as counts_rows,
    )
    from t2i_tools.evaluation.image_folders import read_images as read_images, write_geneval as write_geneval
    from t2i_tools.evaluation.reports.protocol import Protocol as Protocol, read_protocol as read_protocol
    from t2i_tools.evaluation.reports.report import write_report as write_report
    from t2i_tools.evaluation.runs.generators import GENERATORS as GENERATORS
    from t2i_tools.evaluation.runs.items import Item as Item, make_items as make_items
    from t2i_tools.evaluation.runs.manifest import (
        Manifest as Manifest,
        Settings as Settings,
        read_manifest as read_manifest,
        settle as settle,
    )
    from t2i_tools.evaluation.runs.merging import merge as merge
    from t2i_tools.evaluation.runs.runner import forget_errors as forget_errors, run_shard as run_shard
    from t2i_tools.evaluation.runs.stages import Openers as Openers
    from t2i_tools.evaluation.runs.store import Store as Store

_MODULES = {
    "count_benchmark": ("COCO", "COUNTS", "Benchmark", "counts_rows"),
    "runs.items": ("Item", "make_items"),
    "runs.manifest": ("Manifest", "Settings", "read_manifest", "settle"),
    "runs.merging": ("merge",),
    "runs.generators": ("GENERATORS",),
    "image_folders": ("read_images", "write_geneval"),
    "reports.protocol": ("Protocol", "read_protocol"),
    "reports.report": ("write_report",),
    "runs.runner": ("forget_errors", "run_shard"),
    "runs.stages": ("Openers",),
    "runs.store": ("Store",),
}
_PUBLIC = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}
__all__ = sorted(_PUBLIC)


if not TYPE_CHECKING:  # or a misspelled name would be known, as Any

    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_PUBLIC[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
