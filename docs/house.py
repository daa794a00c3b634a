"""Draws the house from its imports: which room takes how many names from which."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = {"t2i_tools": ROOT / "t2i_tools", "t2i_tools.ui": ROOT / "ui", "t2i_tools.pipelines": ROOT / "pipelines"}


def write(docs: Path) -> None:
    """Write `imports.md`: a table, room x room."""
    arrows = count_imports()
    rooms = sorted({room for pair in arrows for room in pair})
    lines = [["imports", *rooms], ["---"] * (len(rooms) + 1)]
    lines += [[room, *(str(arrows.get((room, other), "")) for other in rooms)] for room in rooms]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    (docs / "imports.md").write_text(table + "\n", encoding="utf-8")


def count_imports() -> Counter[tuple[str, str]]:
    """Names imported by each room from each other one."""
    arrows: Counter[tuple[str, str]] = Counter()
    for package, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            module = ".".join([package, *path.relative_to(folder).with_suffix("").parts])
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (target := _target(node, module)).startswith("t2i_tools."):
                    pair = _room(module), _room(target)
                    if pair[0] != pair[1]:
                        arrows[pair] += len(node.names)
    return arrows


def _target(node: ast.ImportFrom, module: str) -> str:
    if not node.level:
        return node.module or ""
    base = module.removesuffix(".__init__").split(".")
    keep = len(base) - node.level + module.endswith(".__init__")
    return ".".join([*base[:keep], *([node.module] if node.module else [])])


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__init__" else "(root)"
