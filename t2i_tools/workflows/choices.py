"""Names that options take, apart from the heavy modules that define them; a test holds both equal."""

from collections.abc import Collection, Sequence

from t2i_tools.errors import InputError

ENTROPY_RULES = ("sqrt_log", "log")
READINGS = ("stretch", "chunk", "truncate")
GENERATORS = (
    *("plain", "entropy_scaling", "entropy_auto", "entropy_half", "entropy_log", "entropy_opposite", "entropy_extreme"),
    *("two_pass", "deep_shrink", "shifted", "chunk", "stretch"),
)
SEARCHES = ("best_of", "bisection+best_of")  # further methods of an evaluation, which a counter steers
CLEAN = ("empty", "pad", "zeros")
POOLED = ("full", "clean")
SPLITS = ("dev", "test")
ENGINES = ("local", "accelerate", "ray")


def one_of(what: str, text: str, names: Sequence[str]) -> str:
    """The name that the text means: hyphens and underscores are alike. Raises InputError that lists the names."""
    meant = next((name for name in names if alike(name) == alike(text)), None)
    if meant is None:
        raise InputError(f"unknown {what} {text!r}: choose {', '.join(names)}")
    return meant


def alike(name: str) -> str:
    """A name with its hyphens as underscores."""
    return name.replace("-", "_")


def check_applies(option: str, chooser: str, chosen: Collection[str], methods: Sequence[str]) -> None:
    """Raise InputError if none of the chosen methods uses `option`. chooser: the option that chose them."""
    if not set(chosen) & set(methods):
        raise InputError(f"{option} does nothing with {chooser} {', '.join(chosen)}: it goes with {', '.join(methods)}")


def number_or_text(text: str) -> float | str:
    """A number where it is one."""
    try:
        return float(text)
    except ValueError:
        return text
