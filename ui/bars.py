"""Shares with intervals as horizontal bars, in SVG."""

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, NAMES, ROW, EDGE = 620, 210, 26, 30
LOW, HIGH = -0.25, 1.25  # what is shown; beyond it a bar ends at the edge
Bar = tuple[str, Mapping[str, float], float | None]  # its name; estimate, low and high; the threshold


def bars_svg(bars: Sequence[Bar], title: str) -> str:
    """One bar per share, its interval over it, and a dashed line at its threshold."""
    height, parts = ROW * len(bars) + EDGE, []
    for share in (0.0, 0.5, 1.0):
        x = _place(share)
        parts.append(f"<line class='t2i-axis' x1='{x}' x2='{x}' y1='0' y2='{height - EDGE}'/>")
        parts.append(f"<text class='t2i-tick' x='{x}' y='{height - 10}' text-anchor='middle'>{share:.0%}</text>")
    listed = []
    for index, (name, one, threshold) in enumerate(bars):
        y, middle = index * ROW + 5, index * ROW + ROW / 2
        start, end = sorted((_place(0), _place(one["estimate"])))
        parts.append(f"<text class='t2i-tick' x='{NAMES - 8}' y='{middle + 4}' text-anchor='end'>{escape(name)}</text>")
        parts.append(f"<rect class='t2i-bar' x='{start}' y='{y}' width='{end - start:.1f}' height='{ROW - 10}'/>")
        low, high = _place(one["low"]), _place(one["high"])
        parts.append(f"<line class='t2i-range' x1='{low}' x2='{high}' y1='{middle}' y2='{middle}'/>")
        if threshold is not None:
            x = _place(threshold)
            parts.append(f"<line class='t2i-target' x1='{x}' x2='{x}' y1='{y - 3}' y2='{y + ROW - 7}'/>")
        listed.append(f"{name}: {one['estimate']:.0%} [{one['low']:.0%}, {one['high']:.0%}]")
    drawn = f"<svg viewBox='0 0 {WIDTH} {height}' role='img' aria-label='{escape('; '.join(listed))}'>{''.join(parts)}"
    head = f"<figcaption class='t2i-hint'>{escape(title)}</figcaption>"
    return f"<figure class='t2i-chart t2i-bars'>{head}{drawn}</svg></figure>"


def _place(share: float) -> float:
    inside = min(max(share, LOW), HIGH)
    return round(NAMES + (inside - LOW) / (HIGH - LOW) * (WIDTH - NAMES - 8), 1)
