"""Figures of evaluation and the statistics that make them trustworthy: pure functions, imported when first used.

Counting needs numpy alone, the statistics scipy and statsmodels, KID and FID torchmetrics: the extra `metrics`.
"""

from importlib import import_module
from typing import Any

from t2i_tools.errors import UnsupportedModelError, first_line

_MODULES = {
    "clip": ("ClipScores", "clip_scores", "derangement", "image_embeddings", "text_embeddings"),
    "comparisons": ("Equivalence", "McNemar", "equivalence", "holm", "mcnemar", "paired_test"),
    "counts": ("METRICS", "Metric", "Sweep", "confusion_matrix", "count_metrics", "found_counts", "threshold_sweep"),
    "distribution": ("Distance", "fid", "kid"),
    "duplication": ("Inflation", "count_inflation"),
    "intervals": (
        "Interval",
        "cluster_bootstrap",
        "nested_bootstrap",
        "paired_bootstrap",
        "paired_shares",
        "share",
        "two_level_bootstrap",
        "wilson",
    ),
    "objects": ("FIGURES", "object_columns"),
    "judge": ("Agreement", "agreement", "corrected_accuracy"),
    "power": ("mcnemar_power", "prompts_for_half_width", "prompts_for_mcnemar", "prompts_for_two_shares"),
}
_PUBLIC = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(_PUBLIC[name])
    except ImportError as error:
        raise UnsupportedModelError(
            f"{name} is missing ({first_line(error)}): pip install 't2i-tools[metrics]'"
        ) from error
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
