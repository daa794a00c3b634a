"""What a type checker sees of the public names, in the package as it is installed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import t2i_tools
from t2i_tools import evaluation, metrics

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "pyproject.toml"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CONFIG.exists(), reason="needs a checkout"),
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the package as a wheel lays it out."""
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("installed")
    unwanted = shutil.ignore_patterns("weights", "__pycache__")
    shutil.copytree(ROOT / "t2i_tools", folder / "t2i_tools", ignore=unwanted)
    for name in ("ui", "pipelines"):
        shutil.copytree(ROOT / name, folder / "t2i_tools" / name, ignore=unwanted)
    return folder


def mypy(folder: Path, code: str) -> list[str]:
    """The lines that mypy says of a program that uses the package."""
    (folder / "program.py").write_text(code)
    command = [sys.executable, "-m", "mypy", "--config-file", CONFIG, "--cache-dir", folder / "cache", "program.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout.splitlines()


@pytest.mark.parametrize("package", [t2i_tools, metrics, evaluation], ids=lambda package: package.__name__)
def test_no_public_name_is_any(installed, package):
    names = [name for name in package.__all__ if name != "__version__"]
    reveals = "".join(f"reveal_type(package.{name})\n" for name in names)
    lines = mypy(installed, f"import {package.__name__} as package\n{reveals}")
    found = [line for line in lines if line.startswith("program.py")]
    assert len(found) == len(names), found
    unknown = [name for name, line in zip(names, found, strict=True) if 'Revealed type is "Any"' in line]
    assert not unknown


def test_the_package_has_no_type_errors(installed):
    command = [sys.executable, "-m", "mypy", "--config-file", CONFIG, "-p", "t2i_tools"]
    result = subprocess.run(command, cwd=installed, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_a_misspelled_name_is_an_error(installed):
    lines = mypy(installed, "import t2i_tools\nt2i_tools.entropy_scalign\n")
    assert any(line.startswith("program.py:2: error") and "entropy_scalign" in line for line in lines)
