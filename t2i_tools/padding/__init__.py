"""Padding probes: what the filling of a prompt does, shown by causal interventions (Toker et al., NAACL 2025)."""

from t2i_tools.padding.diffusion import diffusion_intervention, intervene
from t2i_tools.padding.encoder import encoder_intervention

__all__ = ["diffusion_intervention", "encoder_intervention", "intervene"]
