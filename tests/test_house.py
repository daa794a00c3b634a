"""The house's contract on its imports, held on a copy laid out as the wheel is, where every import resolves."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"t2i_tools": ROOT / "t2i_tools", "t2i_tools/ui": ROOT / "ui", "t2i_tools/pipelines": ROOT / "pipelines"}
# Module -> an import that it must not have.
FORBIDDEN = {
    "evaluation/rows_io.py": "from t2i_tools.ui import queue",
    "evaluation/grid.py": "from t2i_tools.bundled import WEIGHTS",
    "evaluation/runs/rows.py": "from t2i_tools.evaluation.reports import summary",
    "evaluation/reports/summary.py": "from t2i_tools.evaluation.studies import reuse",
    "entropy/formula.py": "from t2i_tools.padding import formula",
    "padding/formula.py": "from t2i_tools.longclip import reader",
    "counting/formula.py": "from t2i_tools.workflows import settings",
    "models/loading.py": "from t2i_tools.images import sizes",
    "metrics/raters.py": "from t2i_tools.detectors import heatmap",
    "detectors/opening.py": "from t2i_tools.metrics import clip",
    "handle.py": "from t2i_tools.models import anatomy",
    "workflows/settings.py": "from t2i_tools.cli import options",
    "pipelines/adaptive.py": "from t2i_tools.bundled import WEIGHTS",
    "ui/values.py": "from t2i_tools.cli import options",
    "cli/tokens.py": "from t2i_tools.ui import queue",
}

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="needs a checkout")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The package as a wheel unpacks it, outside the checkout (tests/test_packaging.py compares the two)."""
    folder = tmp_path_factory.mktemp("site")
    junk = shutil.ignore_patterns("__pycache__", "weights", "*.png", "*.md")
    for name, source in FOLDERS.items():
        shutil.copytree(source, folder / name, ignore=junk)
    return folder


def lint(folder: Path) -> subprocess.CompletedProcess:
    """import-linter on the package in a folder, with the contract of pyproject.toml."""
    pytest.importorskip("importlinter")
    shutil.copy(ROOT / "pyproject.toml", folder)
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": ""}
    options = ["--config", "pyproject.toml", "--no-cache"]
    return subprocess.run([*command, *options], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_contract_is_kept(installed):
    result = lint(installed)
    assert result.returncode == 0, result.stdout + result.stderr
    assert ", 0 broken" in result.stdout


@pytest.fixture(scope="module")
def planted(installed, tmp_path_factory) -> str:
    """What import-linter says of a copy in which every forbidden import is planted."""
    folder = tmp_path_factory.mktemp("planted")
    shutil.copytree(installed, folder, dirs_exist_ok=True)
    for module, line in FORBIDDEN.items():
        with (folder / "t2i_tools" / module).open("a", encoding="utf-8") as file:
            file.write(f"\n\ndef planted():\n    {line}\n")
    result = lint(folder)
    assert result.returncode != 0
    return result.stdout


@pytest.mark.parametrize("module", FORBIDDEN)
def test_a_forbidden_import_breaks_it(planted, module):
    _, package, _, name = FORBIDDEN[module].split()
    importer = "t2i_tools." + module.removesuffix(".py").replace("/", ".")
    assert f"{importer} -> {package}" in planted


def imports(path: Path) -> set[str]:
    """The modules that a file imports by absolute names."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }


def importers(folders: list[Path], room: str) -> list[str]:
    """The files, relative to the checkout, that import from a room."""
    files = [path for folder in folders for path in folder.rglob("*.py")]
    return [str(f.relative_to(ROOT)) for f in files if any(f"{name}.".startswith(f"{room}.") for name in imports(f))]


def test_nobody_stands_on_the_shell():
    outside = [path for path in (ROOT / "t2i_tools").iterdir() if path.is_dir() and path.name != "cli"]
    assert importers([*outside, ROOT / "ui", ROOT / "pipelines", ROOT / "examples"], "t2i_tools.cli") == []


def test_the_shell_knows_the_app_in_one_place():
    assert importers([ROOT / "t2i_tools" / "cli"], "t2i_tools.ui") == ["t2i_tools/cli/ui.py"]
    lines = (ROOT / "t2i_tools" / "cli" / "ui.py").read_text().splitlines()
    assert [line for line in lines if "t2i_tools.ui" in line and "import" in line][0].startswith("    ")


def test_inner_rooms_do_not_import_the_root():
    inner = [path for folder in (ROOT / "t2i_tools").iterdir() if folder.is_dir() for path in folder.rglob("*.py")]
    assert [str(path) for path in inner if "t2i_tools" in imports(path)] == []
