"""A search as it goes, as HTML: its trials in a strip, and charts of what was counted in each."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

SHOWN = 16
WIDTH, HEIGHT, LEFT, BOTTOM, EDGE = 520, 170, 34, 24, 12  # of a chart, and of what is around its points
MOST_TICKS = 10
Points = Sequence[tuple[float, bool]]  # per trial what it reached, and whether it is exact


def strip_html(events: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """The latest trials, boxes drawn, the best of each method marked. names: method -> what the page calls it."""
    if not events:
        return ""
    best = {event["method"]: index for index, event in enumerate(events) if event["best"]}
    frames = []
    for index, event in list(enumerate(events))[-SHOWN:]:
        mark, found = best.get(event["method"]) == index, escape(event["found"])
        about = f"{escape(names.get(event['method'], event['method']))}, trial {event['step'] + 1}: {found} counted"
        frames.append(
            f"<figure class='{'t2i-best' if mark else ''}'><img src='{event['image']}' alt='{about}'>"
            f"<figcaption>{found}{' best' if mark else ''}</figcaption></figure>"
        )
    label = "role='region' aria-label='Trials, the latest last' tabindex='0'"
    return f"<div class='t2i-strip' {label}>{''.join(frames)}</div>"


def charts_html(events: Sequence[Mapping[str, Any]], counts: Mapping[str, int], method: str) -> str:
    """One chart per class of a method's trials, and one of its loss where it has one. counts: class -> wanted."""
    mine = [event for event in events if event["method"] == method]
    if not mine:
        return ""
    charts = []
    for label, n in counts.items():
        points = [(event.get("counted", {}).get(label, event["count"]), _is_exact(event, label, n)) for event in mine]
        charts.append(_chart(points, f"{label}: counted in each trial", n))
    losses = [(event["loss"], event.get("exact", False)) for event in mine if event["loss"] is not None]
    if losses:
        charts.append(_chart(losses, "Loss", None))
    return f"<div class='t2i-charts'>{''.join(charts)}</div>"


def _is_exact(event: Mapping[str, Any], label: str, n: int) -> bool:
    return bool(event.get("counted", {}).get(label, event["count"]) == n)


def _chart(points: Points, title: str, target: int | None) -> str:
    """Dots from left to right over whole numbers, and a line at the target."""
    values = [value for value, _ in points]
    top = max([*values, target or 0, 1]) * 1.08
    across, up = (WIDTH - LEFT - EDGE) / max(len(points), 1), (HEIGHT - BOTTOM - EDGE) / top

    def height(value: float) -> float:
        return round(HEIGHT - BOTTOM - value * up, 1)

    def place(trial: int) -> float:
        return round(LEFT + (trial + 0.5) * across, 1)

    parts = [f"<line class='t2i-axis' x1='{LEFT}' x2='{WIDTH - EDGE}' y1='{height(0)}' y2='{height(0)}'/>"]
    for tick in _ticks(top):
        parts.append(f"<text class='t2i-tick' x='{LEFT - 6}' y='{height(tick) + 4}' text-anchor='end'>{tick:g}</text>")
    for trial in _ticks(len(points), whole=True)[1:]:
        parts.append(
            f"<text class='t2i-tick' x='{place(int(trial) - 1)}' y='{HEIGHT - 7}' text-anchor='middle'>{trial:g}</text>"
        )
    if target is not None:
        y = height(target)
        parts.append(f"<line class='t2i-target' x1='{LEFT}' x2='{WIDTH - EDGE}' y1='{y}' y2='{y}'/>")
        parts.append(f"<text class='t2i-tick' x='{WIDTH - EDGE}' y='{y - 5}' text-anchor='end'>{target} wanted</text>")
    parts += [
        f"<circle class='{'t2i-exact' if exact else 't2i-dot'}' cx='{place(trial)}' cy='{height(value)}' r='5'/>"
        for trial, (value, exact) in enumerate(points)
    ]
    listed = ", ".join(f"{value:.3g}" for value in values)
    wanted = f"; {target} wanted" if target is not None else ""
    return (
        f"<figure class='t2i-chart'><figcaption class='t2i-hint'>{escape(title)}</figcaption>"
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{escape(title)}: {listed}{wanted}'>"
        f"{''.join(parts)}</svg></figure>"
    )


def _ticks(top: float, whole: bool = False) -> list[float]:
    """Round numbers from 0 to the top, few enough to be read."""
    step = 1.0
    if top < 1 and not whole:
        step = 0.2 if top > 0.4 else 0.1 if top > 0.2 else 0.05
    while top / step > MOST_TICKS:
        step *= 2.5 if str(step).startswith("2") else 2
    return [index * step for index in range(int(top / step) + 1)]
