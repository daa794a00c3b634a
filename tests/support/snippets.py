"""The documentation's Python, as small as a tiny model on a CPU wants it. A page says what a reader types."""

import re
from pathlib import Path

from diffusers import DiffusionPipeline

from .quick import quick

# What a large model on a GPU takes -> what a tiny one on a CPU does.
SMALLER = {
    r"torch\.bfloat16": "torch.float32",
    r'\.to\("cuda"\)': "",
    r"width=\d+, height=\d+": "width=128, height=64",
    r"size=\(\d+, \d+\)": "size=(64, 128)",
}


def smaller(snippet: str, folder: Path) -> str:
    """The snippet with a tiny model in `folder` and small images."""
    for large, small in SMALLER.items():
        snippet = re.sub(large, small, snippet)
    return snippet.replace("path/to/model", str(folder))


def open_quick(monkeypatch) -> None:
    """Let `DiffusionPipeline.from_pretrained` give pipelines of two steps."""
    stock = DiffusionPipeline.from_pretrained
    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", lambda *args, **kwargs: quick(stock(*args, **kwargs)))
