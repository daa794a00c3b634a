"""Any size: keep the entropy of self-attention where the number of tokens changes (Jin et al. 2023), and measure it."""

from t2i_tools.entropy.api import entropy_scaling
from t2i_tools.entropy.formula import RULES, Rule
from t2i_tools.entropy.meter import attention_entropy
from t2i_tools.entropy.processors import entropy_processors
from t2i_tools.models.families import supported_families

FAMILIES = supported_families("entropy")

__all__ = ["FAMILIES", "RULES", "Rule", "attention_entropy", "entropy_processors", "entropy_scaling"]
