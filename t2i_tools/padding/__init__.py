"""Padding probes: what the filling of a prompt does, shown by causal interventions (Toker et al., NAACL 2025)."""

from importlib import import_module
from typing import Any

from t2i_tools.padding.attention import pad_attention
from t2i_tools.padding.diffusion import diffusion_intervention, intervene
from t2i_tools.padding.encoder import encoder_intervention
from t2i_tools.padding.policy import mask_policy

# Pipelines on which interventions were compared with an oracle (tests/padding).
FAMILIES = (
    "aura_flow",
    "chroma",
    "cogview4",
    "flux",
    "lumina2",
    "pixart_alpha",
    "qwenimage",
    "stable_diffusion",
    "stable_diffusion_3",
    "stable_diffusion_xl",
    "z_image",
)
_MEASURED = {"probe_padding": "t2i_tools.padding.probe"}  # takes the extra `metrics`

__all__ = [
    "FAMILIES",
    "diffusion_intervention",
    "encoder_intervention",
    "intervene",
    "mask_policy",
    "pad_attention",
    "probe_padding",
]


def __getattr__(name: str) -> Any:
    if name not in _MEASURED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MEASURED[name]), name)
