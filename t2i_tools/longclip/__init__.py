"""Long prompts: windows one by one, or positions stretched as in Long-CLIP (Zhang et al., ECCV 2024)."""

from t2i_tools.longclip.checkpoint import load_long_clip
from t2i_tools.longclip.matching import primary_component_loss
from t2i_tools.longclip.patch import check_method, long_prompts
from t2i_tools.longclip.positions import stretch_positions
from t2i_tools.longclip.reader import METHODS, Method
from t2i_tools.longclip.ruler import Ruler, RulerWord, token_ruler
from t2i_tools.longclip.stretch import stretch_clip

# Pipelines on which every length of prompt and negative prompt was tried (tests/longclip).
FAMILIES = ("flux", "stable_diffusion", "stable_diffusion_3", "stable_diffusion_xl")

__all__ = [
    "FAMILIES",
    "METHODS",
    "Method",
    "Ruler",
    "RulerWord",
    "check_method",
    "load_long_clip",
    "long_prompts",
    "primary_component_loss",
    "stretch_clip",
    "stretch_positions",
    "token_ruler",
]
