"""Numbers in words."""


def seconds(number: float) -> str:
    """A time in words, as exact as one needs it."""
    return f"{number / 60:.0f} min" if number >= 90 else f"{number:.0f} s" if number >= 10 else f"{number:.1f} s"
