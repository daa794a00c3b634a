"""A search as it goes: its trials in a strip, and the count and the loss of each as a chart."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import gradio as gr
import pandas as pd

SHOWN = 16


def strip_html(events: Sequence[Mapping[str, Any]]) -> str:
    """The latest trials, boxes drawn, the best marked."""
    if not events:
        return ""
    frames = "".join(
        f"<figure class='{'t2i-best' if event['best'] else ''}'><img src='{event['image']}' "
        f"alt='{escape(event['method'])}, step {event['step'] + 1}: {escape(event['found'])} counted'>"
        f"<figcaption>{escape(event['found'])}{' best' if event['best'] else ''}</figcaption></figure>"
        for event in events[-SHOWN:]
    )
    return f"<div class='t2i-strip' role='region' aria-label='Trials, the latest last' tabindex='0'>{frames}</div>"


def charts() -> tuple[gr.ScatterPlot, gr.ScatterPlot]:
    """Empty charts of the counts and of the losses: points, for a line does not show a method's only trial."""
    common = {"x": "trial", "color": "method", "visible": False}
    return (
        gr.ScatterPlot(y="counted", label="Objects counted", **common),
        gr.ScatterPlot(y="loss", label="Loss", **common),
    )


def chart_values(events: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What the charts show of a search."""
    frame = pd.DataFrame(
        [
            {"trial": i + 1, "counted": event["count"], "loss": event["loss"], "method": event["method"]}
            for i, event in enumerate(events)
        ],
        columns=["trial", "counted", "loss", "method"],
    )
    return [_shown(frame, "counted", len(frame)), _shown(frame.dropna(subset=["loss"]), "loss", len(frame))]


def _shown(frame: pd.DataFrame, name: str, trials: int) -> gr.ScatterPlot:
    """A chart's next value, with room around the points, which Gradio cuts at the edges."""
    low, high = min(frame[name], default=0), max(frame[name], default=1)
    room = 0.1 * (high - min(low, 0)) or 1
    return gr.ScatterPlot(
        frame, x_lim=[0, trials + 1], y_lim=[min(low - room, 0), high + room], visible=not frame.empty
    )
