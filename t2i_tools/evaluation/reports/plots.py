"""Small plots as SVG text, in the colors of the page they stand in."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TypeAlias

Point: TypeAlias = tuple[float, float, float, float]  # x, y, low, high
COLORS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 460, 260, 48, 40, 12


def line_plot(series: Mapping[str, Sequence[Point]], x_label: str, y_label: str, top: float = 1.0) -> str:
    """One line a series with a bar from low to high at each point; y runs from 0 to `top`, x over what there is."""
    xs = sorted({point[0] for points in series.values() for point in points})
    if not xs:
        return ""
    span = xs[-1] - xs[0] or 1.0
    head = TOP + 15 * len(series)  # the names stand above the lines

    def place(x: float, y: float) -> tuple[float, float]:
        right = (x - xs[0]) / span if len(xs) > 1 else 0.5
        up = min(max(y / top, 0.0), 1.0)
        return LEFT + 16 + right * (WIDTH - LEFT - 40), head + (1 - up) * (HEIGHT - BOTTOM - TOP)

    parts = [_axes(place, _thinned(xs), x_label, y_label, top)]
    for number, (name, points) in enumerate(series.items()):
        color = COLORS[number % len(COLORS)]
        shift = 4 * (number - (len(series) - 1) / 2)  # bars beside each other
        places = [(place(x, y)[0] + shift, place(x, y)[1]) for x, y, _, _ in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        for (x, y), (at, value, low, high) in zip(places, points, strict=True):
            if math.isfinite(low) and math.isfinite(high):
                ends = place(at, low)[1], place(at, high)[1]
                parts.append(f'<path d="M{x:.1f} {ends[0]:.1f}V{ends[1]:.1f}" stroke="{color}" opacity=".5"/>')
            bounds = f" [{low:.3f}, {high:.3f}]" if math.isfinite(low) else ""
            title = escape(f"{name}: {value:.3f}{bounds} at {at:g}")
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"><title>{title}</title></circle>')
        label = escape(name)
        parts.append(f'<text x="{WIDTH - 8}" y="{TOP + 15 * number}" text-anchor="end" fill="{color}">{label}</text>')
    return _svg(WIDTH, place(xs[0], 0)[1] + BOTTOM, parts, f"{y_label} over {x_label}")


def heat_table(table: Sequence[Sequence[int]], x_label: str, y_label: str) -> str:
    """A square table of numbers, each row shaded by its shares; row and column numbers from 0."""
    size = len(table)
    side = min(34, max(16, 400 // max(1, size)))
    edge = 44
    parts = [
        f'<text x="{edge + size * side / 2:.0f}" y="12" text-anchor="middle">{escape(x_label)}</text>',
        f'<text transform="translate(12 {edge + size * side / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>",
    ]
    for i, row in enumerate(table):
        total = sum(row) or 1
        parts.append(f'<text x="{edge - 8}" y="{edge + (i + 0.65) * side:.0f}" text-anchor="end">{i}</text>')
        parts.append(f'<text x="{edge + (i + 0.5) * side:.0f}" y="{edge - 8}" text-anchor="middle">{i}</text>')
        for j, value in enumerate(row):
            x, y = edge + j * side, edge + i * side
            color = COLORS[2] if i == j else COLORS[3]
            box = f'x="{x}" y="{y}" width="{side - 1}" height="{side - 1}" rx="2"'
            parts.append(f'<rect {box} fill="{color}" opacity="{0.04 + 0.8 * value / total:.2f}"/>')
            if value:
                middle = f'x="{x + side / 2:.0f}" y="{y + 0.65 * side:.0f}" text-anchor="middle"'
                parts.append(f"<text {middle}>{value}</text>")
    return _svg(edge + size * side + 4, edge + size * side + 4, parts, f"{y_label} by {x_label}")


def _axes(place, xs: Sequence[float], x_label: str, y_label: str, top: float) -> str:
    parts, floor = [], place(xs[0], 0)[1]
    for tick in range(5):
        value = top * tick / 4
        _, y = place(xs[0], value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - 8}" stroke="currentColor" opacity=".15"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for x in xs:
        left, _ = place(x, 0)
        parts.append(f'<text x="{left:.1f}" y="{floor + 16:.0f}" text-anchor="middle">{x:g}</text>')
    parts.append(
        f'<text x="{WIDTH / 2:.0f}" y="{floor + BOTTOM - 6:.0f}" text-anchor="middle">{escape(x_label)}</text>'
    )
    centre = f"translate(12 {place(xs[0], top / 2)[1]:.0f}) rotate(-90)"
    parts.append(f'<text transform="{centre}" text-anchor="middle">{escape(y_label)}</text>')
    return "".join(parts)


def _thinned(xs: Sequence[float], most: int = 12) -> list[float]:
    return list(xs[:: -(-len(xs) // most)])


def _svg(width: float, height: float, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" font-size="12" '
        f'fill="currentColor" xmlns="http://www.w3.org/2000/svg"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )
