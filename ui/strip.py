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


def charts() -> tuple[gr.LinePlot, gr.LinePlot]:
    """Empty charts of the counts and of the losses."""
    common = {"x": "trial", "color": "method", "height": 240, "visible": False}
    return (
        gr.LinePlot(y="counted", label="Objects counted", **common),
        gr.LinePlot(y="loss", label="Loss", **common),
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
    losses = frame.dropna(subset=["loss"])
    return [gr.LinePlot(frame, visible=len(frame) > 1), gr.LinePlot(losses, visible=len(losses) > 1)]
