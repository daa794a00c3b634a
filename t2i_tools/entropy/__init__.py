"""Any size: keep the entropy of self-attention where the number of tokens changes (Jin et al. 2023), and measure it."""

from t2i_tools.entropy.gain import RULES, Rule
from t2i_tools.entropy.meter import attention_entropy
from t2i_tools.entropy.patch import entropy_scaling

# Pipelines on whose denoisers every layer was compared with an attention scaled in the softmax (tests/entropy).
FAMILIES = (
    "aura_flow",
    "chroma",
    "cogview4",
    "flux",
    "hunyuandit",
    "lumina",
    "lumina2",
    "pixart_alpha",
    "qwenimage",
    "stable_diffusion",
    "stable_diffusion_3",
    "stable_diffusion_xl",
    "z_image",
)

__all__ = ["FAMILIES", "RULES", "Rule", "attention_entropy", "entropy_scaling"]
