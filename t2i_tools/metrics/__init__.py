"""Figures of evaluation and the statistics that make them trustworthy: pure functions, imported when first used.

Counting needs numpy alone, the statistics scipy and statsmodels, KID torchmetrics: the extra `metrics`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from t2i_tools.errors import UnsupportedModelError, first_line, install

if TYPE_CHECKING:  # what editors and type checkers see of the names below
    from t2i_tools.metrics.clip import ClipScorer as ClipScorer, ClipScores as ClipScores, derangement as derangement
    from t2i_tools.metrics.comparisons import (
        Equivalence as Equivalence,
        McNemar as McNemar,
        equivalence as equivalence,
        holm as holm,
        mcnemar as mcnemar,
        paired_test as paired_test,
    )
    from t2i_tools.metrics.counts import (
        METRICS as METRICS,
        Metric as Metric,
        Sweep as Sweep,
        confusion_matrix as confusion_matrix,
        count_metrics as count_metrics,
        found_counts as found_counts,
        threshold_sweep as threshold_sweep,
    )
    from t2i_tools.metrics.distribution import Distance as Distance, kid as kid
    from t2i_tools.metrics.interval import Interval as Interval
    from t2i_tools.metrics.intervals import (
        cluster_bootstrap as cluster_bootstrap,
        nested_bootstrap as nested_bootstrap,
        paired_bootstrap as paired_bootstrap,
        paired_shares as paired_shares,
        share as share,
        stratified_bootstrap as stratified_bootstrap,
        wilson as wilson,
    )
    from t2i_tools.metrics.objects import FIGURES as FIGURES, object_columns as object_columns
    from t2i_tools.metrics.power import (
        mcnemar_power as mcnemar_power,
        prompts_for_half_width as prompts_for_half_width,
        prompts_for_mcnemar as prompts_for_mcnemar,
        prompts_for_two_shares as prompts_for_two_shares,
    )
    from t2i_tools.metrics.raters import (
        Agreement as Agreement,
        agreement as agreement,
        corrected_accuracy as corrected_accuracy,
    )

_MODULES = {
    "clip": ("ClipScorer", "ClipScores", "derangement"),
    "comparisons": ("Equivalence", "McNemar", "equivalence", "holm", "mcnemar", "paired_test"),
    "counts": ("METRICS", "Metric", "Sweep", "confusion_matrix", "count_metrics", "found_counts", "threshold_sweep"),
    "distribution": ("Distance", "kid"),
    "interval": ("Interval",),
    "intervals": (
        "cluster_bootstrap",
        "nested_bootstrap",
        "paired_bootstrap",
        "paired_shares",
        "share",
        "stratified_bootstrap",
        "wilson",
    ),
    "objects": ("FIGURES", "object_columns"),
    "raters": ("Agreement", "agreement", "corrected_accuracy"),
    "power": ("mcnemar_power", "prompts_for_half_width", "prompts_for_mcnemar", "prompts_for_two_shares"),
}
_PUBLIC = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}
__all__ = sorted(_PUBLIC)


if not TYPE_CHECKING:  # or a misspelled name would be known, as Any

    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            module = import_module(_PUBLIC[name])
        except ImportError as error:
            raise UnsupportedModelError(f"{name} is missing ({first_line(error)}): {install('metrics')}") from error
        value = globals()[name] = getattr(module, name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
