"""Long prompts: windows one by one, or positions stretched as in Long-CLIP (Zhang et al., ECCV 2024)."""

from t2i_tools.longclip.api import check_method, long_prompts
from t2i_tools.longclip.checkpoint import load_long_clip
from t2i_tools.longclip.formula import stretch_positions
from t2i_tools.longclip.matching import primary_component_loss
from t2i_tools.longclip.reader import READINGS, Method
from t2i_tools.longclip.ruler import Ruler, RulerWord, token_ruler
from t2i_tools.longclip.stretch import stretch_clip
from t2i_tools.longclip.syntax import Note, gathered, has_syntax, parse_prompt
from t2i_tools.models.families import supported_families

FAMILIES = supported_families("longclip")

__all__ = [
    "FAMILIES",
    "READINGS",
    "Method",
    "Note",
    "Ruler",
    "RulerWord",
    "check_method",
    "gathered",
    "has_syntax",
    "load_long_clip",
    "long_prompts",
    "parse_prompt",
    "primary_component_loss",
    "stretch_clip",
    "stretch_positions",
    "token_ruler",
]
