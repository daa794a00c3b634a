"""The files of a padding probe and of a comparison of padding policies: images, all figures, one page."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i_tools.handle import Report

if TYPE_CHECKING:
    from PIL import Image

    from t2i_tools.padding.comparison import PolicyComparison
    from t2i_tools.padding.probe import ConditionScores, Probe

# (prompt, class, count): what the bundled model draws right from seed 0; ordinary objects for any other model.
DEFAULT_PROMPTS: tuple[tuple[str, str, int], ...] = (
    ("two apples on a yellow background", "apple", 2),
    ("two bananas on a gray background", "banana", 2),
    ("two bananas on a green background", "banana", 2),
    ("two cars on a white background", "car", 2),
    ("two stars on a yellow background", "star", 2),
    ("two trees on a gray background", "tree", 2),
    ("two umbrellas on a gray background", "umbrella", 2),
    ("two flowers on a white background", "flower", 2),
    ("two balls on a green background", "ball", 2),
    ("three balls on a white background", "ball", 3),
    ("three frogs on a yellow background", "frog", 3),
    ("a cat on a yellow background", "cat", 1),
    ("two cars on a yellow background", "car", 2),
    ("a tree on a white background", "tree", 1),
    ("a flower on a gray background", "flower", 1),
    ("a fish on a green background", "fish", 1),
)
DEFAULT_SEED = 0


def default_rows() -> list[dict[str, Any]]:
    """The prompts of a probe for which none are given, as rows of a prompts file."""
    return [{"prompt": prompt, "label": label, "count": count} for prompt, label, count in DEFAULT_PROMPTS]


def save_probe(found: Probe, folder: Path, settings: dict[str, Any]) -> None:
    """Write probe.png, the images of the first prompts; probe.json, all figures; and probe.html, both on one page."""
    from t2i_tools.padding.paper import paper_table

    grid = draw_probe(found)
    tables = {
        "What the padding carries, and whether it is needed": found.verdict.table(),
        "Scores of the images, with 95 % intervals over prompts": found.table(),
        "The six models of Toker et al. 2025, by CLIP score": paper_table(),
    }
    lines = [str(found.verdict), found.kind_line, found.note]
    _save("probe", folder, found.as_dict(), settings, grid, str(found.verdict), (lines, tables))


def save_policies(found: PolicyComparison, folder: Path, settings: dict[str, Any]) -> None:
    """Write policies.png, policies.json and policies.html."""
    tables = {"Padding policies, with 95 % intervals over prompts": found.table()}
    page = policy_lines(found), tables
    _save("policies", folder, found.as_dict(), settings, draw_policies(found), str(found.advice), page)


def policy_lines(found: PolicyComparison) -> list[str]:
    """The advice, what the pipeline does as it comes, and what the model cannot do."""
    refused = [f"{policy} was not tried: {why}" for policy, why in found.refused.items()]
    return [f"advice: {found.advice}", f"as trained is the policy {found.trained!r}", *refused]


def draw_probe(found: Probe) -> Image.Image:
    """Conditions across, prompts and seeds down, the similarity to the whole prompt's image under each."""
    heads = [cell.condition if cell.route == "plain" else f"{cell.route}: {cell.condition}" for cell in found.cells]
    return _grid(heads, found.cells, found.prompts, found.seeds)


def draw_policies(found: PolicyComparison) -> Image.Image:
    """Policies across, prompts and seeds down, the similarity to the image as trained under each."""
    return _grid([cell.condition for cell in found.cells], found.cells, found.prompts, found.seeds)


def plain_json(value: Any) -> Any:
    """Without what JSON cannot hold."""
    if isinstance(value, Mapping):
        return {name: plain_json(one) for name, one in value.items()}
    return [plain_json(one) for one in value] if isinstance(value, (list, tuple)) else _text(value)


def _text(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _grid(
    heads: list[str], cells: Sequence[ConditionScores], prompts: Sequence[str], seeds: Sequence[int]
) -> Image.Image:
    from t2i_tools.evaluation.grid import Axis, draw_grid

    lines = [f"{prompt[:40]} {seed}" for prompt, seed in zip(prompts, seeds, strict=True)]
    shown = len(cells[0].pictures)
    pictures = [cell.pictures[row] for row in range(shown) for cell in cells]
    captions = [_caption(cell, row) for row in range(shown) for cell in cells]
    return draw_grid([Axis("", tuple(heads)), Axis("", tuple(lines[:shown]))], pictures, captions)


def _caption(cell: ConditionScores, row: int) -> str:
    objects = f", objects {cell.recall[row]:.0%}" if row < len(cell.recall) else ""
    return f"similarity {cell.similarity[row]:.0f}{objects}"


def _save(
    name: str,
    folder: Path,
    figures: dict[str, Any],
    settings: dict[str, Any],
    grid: Image.Image,
    summary: str,
    page: tuple[list[str], dict[str, Report]],
) -> None:
    from t2i_tools.evaluation.rows_io import write_text
    from t2i_tools.images.metadata import save_image

    write_text(folder / f"{name}.json", json.dumps(plain_json({**figures, "settings": settings}), indent=1) + "\n")
    save_image(grid, folder / f"{name}.png", {"verdict": summary, **settings})
    lines, tables = page
    write_text(folder / f"{name}.html", _page(f"Padding: {name}", lines, tables, grid, settings))


def _page(title: str, lines: list[str], tables: dict[str, Report], grid: Image.Image, settings: dict[str, Any]) -> str:
    """One page that needs no other file."""
    buffer = io.BytesIO()
    grid.save(buffer, format="PNG")
    image = base64.b64encode(buffer.getvalue()).decode()
    body = [f"<p>{html.escape(line)}</p>" for line in lines if line]
    body += [f"<h2>{html.escape(head)}</h2>{_table(table)}" for head, table in tables.items()]
    body += [f'<h2>Images</h2><img alt="{html.escape(title)}" src="data:image/png;base64,{image}">']
    body += [f"<p class=hint>{html.escape(', '.join(f'{name} {value}' for name, value in settings.items()))}</p>"]
    return PAGE.format(title=html.escape(title), body="\n".join(body))


def _table(table: Report) -> str:
    if not table:
        return "<p>none</p>"
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in table[0])
    rows = ("".join(f"<td>{html.escape(str(row.get(name, '')))}</td>" for name in table[0]) for row in table)
    return f"<table><tr>{heads}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; color: #1f2328 }}
table {{ border-collapse: collapse }}
td, th {{ text-align: left; padding: .2rem .6rem; border-bottom: 1px solid #d0d7de }}
img {{ max-width: 100%; display: block }} .hint {{ color: #57606a; font-size: 13px }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""
