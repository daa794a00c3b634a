"""Exact counts: a learned token that a detector drives (Zafar et al. 2024), and the methods it has to beat."""

from t2i_tools.counting.clip import ClipTerm
from t2i_tools.counting.compute import Compute
from t2i_tools.counting.methods import best_of, optimize_count
from t2i_tools.counting.options import METHODS, Options
from t2i_tools.counting.patch import count_token
from t2i_tools.counting.results import Result, Step
from t2i_tools.counting.search import Search
from t2i_tools.counting.token import CountToken

# Pipelines on which a token is read as the word whose embedding it has, to the bit (tests/counting).
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

__all__ = [
    "FAMILIES",
    "METHODS",
    "ClipTerm",
    "Compute",
    "CountToken",
    "Options",
    "Result",
    "Search",
    "Step",
    "best_of",
    "count_token",
    "optimize_count",
]
