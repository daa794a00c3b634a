"""Writes the page of results from the result files, so that no figure is typed twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
EVALUATIONS = ROOT / "examples" / "evaluations"
BUNDLED = ROOT / "t2i_tools" / "bundled"
# File -> the heading of its section.
TABLES = {
    "sizes/results.md": "Any size",
    "sizes/strength_results.md": "Any size: the strength of entropy scaling",
    "sizes/above_results.md": "Any size: above the native size, and what the advice costs",
    "counts/results.md": "Exact counts",
    "count_reuse/results.md": "A count token used again",
}
INTRODUCTION = """# Results

Every table is made from the result files in the repository, all of the bundled model, a 128-pixel model of emoji.
The commands stand in the scripts beside the files; what was claimed before a run stands in its `protocol.json`. How to
read the figures: {doc}`glossary`.
"""


def write(docs: Path) -> None:
    """Write `results.md` beside the other pages."""
    text = "\n\n".join([INTRODUCTION, *_sections()]) + "\n"
    (docs / "results.md").write_text(text, encoding="utf-8")


def _sections() -> Iterator[str]:
    yield f"## The bundled model\n\n{_demoted((BUNDLED / 'MODEL_CARD.md').read_text(encoding='utf-8'), 2)}"
    for name, heading in TABLES.items():
        path = EVALUATIONS / name
        if path.exists():
            yield f"## {heading}\n\n{_protocol(path)}{_demoted(path.read_text(encoding='utf-8'), 2)}"
    long_prompts = EVALUATIONS / "long_prompts" / "results.json"
    yield f"## Long prompts\n\n{_protocol(long_prompts)}{_json_tables(json.loads(long_prompts.read_text()))}"
    fresh = long_prompts.with_name("results_fresh.json")
    yield f"### Fresh scenes\n\n{_json_tables(json.loads(fresh.read_text()), 4)}"
    yield "## Padding\n\n" + "\n\n".join(
        f"### {path.stem}\n\n```text\n{path.read_text(encoding='utf-8').strip()}\n```"
        for path in sorted((EVALUATIONS / "padding" / "results").glob("*.txt"))
    )
    for name, heading in (("earlier_400", "The four cells, 400 prompts"), ("planted", "Planted models")):
        told = EVALUATIONS / "padding" / "results" / f"{name}.md"
        if told.exists():
            yield f"### {heading}\n\n{_demoted(told.read_text(encoding='utf-8'), 2)}"


def _protocol(results: Path) -> str:
    """Of results.md protocol.json, of NAME_results.md NAME_protocol.json."""
    path = results.with_name(f"{results.stem.removesuffix('results')}protocol.json")
    if not path.exists():
        return ""
    lines = json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=2)
    return f"What was claimed before the run:\n\n```json\n{lines}\n```\n\n"


def _demoted(text: str, levels: int) -> str:
    """Markdown whose headings are some levels lower; a first-level heading is left out, since ours stands there."""
    lines = []
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if line.startswith("# ") and not fenced:
            continue
        lines.append("#" * (levels - 1) + line if line.startswith("#") and not fenced else line)
    return "\n".join(lines)


def _json_tables(results: dict[str, Any], depth: int = 3) -> str:
    """Nested results: figures with an interval as tables, all else as lists, the rest as headings."""
    parts = [str(results["_about"]) + "\n"] if "_about" in results else []
    for name, value in results.items():
        if name == "_about":
            continue
        if not isinstance(value, dict):
            parts.append(f"- {name}: {value}")
        elif columns := _columns(value):
            parts.append(f"\n{'#' * min(depth, 6)} {name}\n\n{_table(value, columns)}\n")
        else:
            parts.append(f"\n{'#' * min(depth, 6)} {name}\n\n{_json_tables(value, depth + 1)}\n")
    return "\n".join(parts)


def _columns(rows: dict[str, Any]) -> list[str]:
    """The figures with an interval that all rows have; [] where a row is none."""
    rows = {name: row for name, row in rows.items() if name != "_about"}
    if not rows or not all(isinstance(row, dict) for row in rows.values()):
        return []
    return [key for key, cell in next(iter(rows.values())).items() if isinstance(cell, dict) and "low" in cell]


def _table(rows: dict[str, dict[str, Any]], columns: list[str]) -> str:
    lines = [["", *columns], ["---"] * (len(columns) + 1)]
    lines += [[name, *(_cell(row[key]) for key in columns)] for name, row in rows.items() if name != "_about"]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(figure: dict[str, Any]) -> str:
    value, low, high = (f"{100 * figure[key]:.1f}" for key in ("value", "low", "high"))
    return f"{value} % [{low}, {high}], n = {figure['n']}"
