"""Padding probes: what the padding of a prompt does, shown by causal interventions (Toker et al., NAACL 2025)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from t2i_tools.models.families import supported_families
from t2i_tools.padding.api import compare_conditions, diffusion_intervention, encoder_intervention, pad_policy
from t2i_tools.padding.meter import pad_attention

if TYPE_CHECKING:
    from t2i_tools.padding.comparison import compare_policies
    from t2i_tools.padding.probe import probe_padding

FAMILIES = supported_families("padding")
_MEASURED = {
    "compare_policies": "t2i_tools.padding.comparison",
    "probe_padding": "t2i_tools.padding.probe",
}  # takes the extra `metrics`

__all__ = [
    "FAMILIES",
    "compare_conditions",
    "compare_policies",
    "diffusion_intervention",
    "encoder_intervention",
    "pad_attention",
    "pad_policy",
    "probe_padding",
]


if not TYPE_CHECKING:  # or a misspelled name would be known, as Any

    def __getattr__(name: str) -> Any:
        if name not in _MEASURED:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MEASURED[name]), name)
