"""Exact counts: a learned token that a detector drives (Zafar et al. 2024), and the methods it has to beat."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from t2i_tools.counting.methods import DEFAULT_BUDGET, DEFAULT_METHOD, METHODS
from t2i_tools.models.families import supported_families

if TYPE_CHECKING:
    from t2i_tools.counting.api import best_of, optimize_count
    from t2i_tools.counting.clip_term import ClipTerm
    from t2i_tools.counting.compute import Compute
    from t2i_tools.counting.hooks import count_token
    from t2i_tools.counting.look_record import LookRecords
    from t2i_tools.counting.options import CountOptions
    from t2i_tools.counting.results import Result, Step
    from t2i_tools.counting.search import Search
    from t2i_tools.counting.token import CountToken

FAMILIES = supported_families("counting")

# Public name -> its module, imported when the name is first used: torch takes seconds, the shell only wants METHODS.
_PUBLIC = {
    "ClipTerm": "clip_term",
    "Compute": "compute",
    "CountOptions": "options",
    "CountToken": "token",
    "LookRecords": "look_record",
    "Result": "results",
    "Search": "search",
    "Step": "results",
    "best_of": "api",
    "count_token": "hooks",
    "optimize_count": "api",
}
__all__ = [
    "DEFAULT_BUDGET",
    "DEFAULT_METHOD",
    "FAMILIES",
    "METHODS",
    "ClipTerm",
    "Compute",
    "CountOptions",
    "CountToken",
    "LookRecords",
    "Result",
    "Search",
    "Step",
    "best_of",
    "count_token",
    "optimize_count",
]


if not TYPE_CHECKING:  # or a misspelled name would be known, as Any

    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
        return value
