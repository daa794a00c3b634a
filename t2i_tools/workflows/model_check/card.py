"""The card of a model's self-check: what was tried, what came out, the images that show it."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from t2i_tools.files import replacing

Status = Literal["ok", "note", "failed", "unsupported", "skipped"]
COLORS = {"ok": "#1a7f37", "note": "#9a6700", "failed": "#cf222e", "unsupported": "#57606a", "skipped": "#57606a"}


@dataclass(frozen=True)
class Check:
    """One thing that was tried.

    Attributes:
        plugin: The plugin or part of the model it concerns, such as "entropy scaling".
        name: What was tried, such as "acts".
        status: "ok"; "note" for what a user should know; "failed" for a fault; "unsupported" for what this family
            cannot do; "skipped" for what was not tried.
        message: The outcome in one line.
        figures: The measured values by name, ready for JSON.
    """

    plugin: str
    name: str
    status: Status
    message: str
    figures: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status:<11}  {f'{self.plugin}: {self.name}':<44}  {self.message}"


@dataclass
class ModelCard:
    """The outcome of a self-check.

    Attributes:
        model: What identifies the model: pipeline, denoiser, family, native size, device, dtype, versions.
        settings: How the images were made.
        checks: The checks in the order in which they ran.
        images: The images by caption, (H, W, 3) float in [0, 1].
    """

    model: dict[str, Any]
    settings: dict[str, Any]
    checks: list[Check] = field(default_factory=list)
    images: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def failed(self) -> list[Check]:
        """The checks that found a fault."""
        return [check for check in self.checks if check.status == "failed"]

    def to_dict(self) -> dict[str, Any]:
        """The card without its images, ready for JSON."""
        return {"model": self.model, "settings": self.settings, "checks": [asdict(check) for check in self.checks]}

    def to_html(self) -> str:
        """The card as one HTML page that needs no other file."""
        return PAGE.format(
            title=html.escape(f"t2i-tools on {self.model.get('pipeline', 'a model')}"),
            model=_definitions(self.model | self.settings),
            rows="\n".join(map(_row, self.checks)),
            images="\n".join(_figure(caption, image) for caption, image in self.images.items()),
        )

    def __str__(self) -> str:
        return "\n".join(map(str, self.checks))

    def save(self, folder: Path) -> None:
        """Write `card.json`, `card.html` and the images as PNG, each complete or not at all.

        Raises:
            InputError: If the folder cannot be written.
        """
        for name, text in (("card.json", json.dumps(self.to_dict(), indent=1) + "\n"), ("card.html", self.to_html())):
            with replacing(folder / name) as part:
                part.write_text(text, encoding="utf-8")
        for caption, array in self.images.items():
            name = re.sub(r"\W+", "-", caption).strip("-")
            with replacing(folder / f"{name}.png") as part:
                to_image(array).save(part, format="PNG")


def to_image(array: np.ndarray) -> Image.Image:
    """(H, W, 3) float in [0, 1] as an 8-bit image."""
    return Image.fromarray((np.clip(array, 0, 1) * 255).round().astype(np.uint8))


def _definitions(values: dict[str, Any]) -> str:
    return "".join(f"<dt>{html.escape(str(k))}</dt><dd>{html.escape(str(v))}</dd>" for k, v in values.items())


def _row(check: Check) -> str:
    cells = (check.plugin, check.name, check.message)
    status = f'<td style="color:{COLORS[check.status]}"><b>{check.status}</b></td>'
    return "<tr>" + status + "".join(f"<td>{html.escape(text)}</td>" for text in cells) + "</tr>"


def _figure(caption: str, array: np.ndarray) -> str:
    buffer = io.BytesIO()
    to_image(array).save(buffer, format="PNG")
    source = base64.b64encode(buffer.getvalue()).decode()
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{source}"><figcaption>{text}</figcaption></figure>'


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1f2328 }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem }} dt {{ color: #57606a }} dd {{ margin: 0 }}
table {{ border-collapse: collapse; width: 100% }} td, th {{ text-align: left; padding: .3rem .6rem;
border-bottom: 1px solid #d0d7de; vertical-align: top }}
.images {{ display: flex; flex-wrap: wrap; gap: 1rem }} figure {{ margin: 0 }} figcaption {{ font-size: 13px }}
img {{ max-width: 16rem; min-width: 8rem; image-rendering: pixelated; display: block }}
</style></head><body>
<h1>{title}</h1>
<dl>{model}</dl>
<table><thead><tr><th>status</th><th>part</th><th>check</th><th>outcome</th></tr></thead><tbody>
{rows}
</tbody></table>
<h2>Images</h2>
<div class="images">
{images}
</div>
</body></html>
"""
