"""The built wheel holds what the tree holds, and .ci/run does what the README says."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"t2i_tools": "t2i_tools", "pipelines": "t2i_tools/pipelines", "ui": "t2i_tools/ui"}
KEPT = (".py", ".css", ".js")
BESIDE = ("pyproject.toml", "README.md", "LICENSE", "NOTICE")
JUNK = shutil.ignore_patterns("__pycache__", ".*")

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="needs a checkout")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A wheel built from a copy of the tree, whose own build folder would keep what was since removed."""
    pytest.importorskip("build")
    copy = tmp_path_factory.mktemp("checkout")
    for folder in PACKAGES:
        shutil.copytree(ROOT / folder, copy / folder, ignore=JUNK)
    for name in BESIDE:
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", copy / "out", copy]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (built,) = (copy / "out").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def wheel(built) -> set[str]:
    """The names in the wheel."""
    return set(zipfile.ZipFile(built).namelist())


def test_every_module_and_weight_of_the_tree_is_in_the_wheel(wheel):
    expected = set()
    for folder, package in PACKAGES.items():
        files = [path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*") if path.is_file()]
        kept = [f for f in files if not any(part == "__pycache__" or part.startswith(".") for part in f.parts)]
        expected |= {f"{package}/{f.as_posix()}" for f in kept if f.suffix in KEPT or "weights" in f.parts}
    installed = {name for name in wheel if name.endswith(KEPT) or "/weights/" in name}
    assert installed == expected


@pytest.mark.slow
def test_readme_runs_from_the_wheel(built, tmp_path):
    zipfile.ZipFile(built).extractall(tmp_path)
    test = ROOT / "tests" / "test_readme.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", test]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "T2I_TOOLS_FROM": str(tmp_path)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_nothing_lands_beside_the_package(wheel):
    tops = {name.split("/")[0] for name in wheel}
    assert "t2i_tools" in tops
    assert all(top == "t2i_tools" or top.endswith(".dist-info") for top in tops)


def test_licences_are_in_the_wheel(wheel):
    names = {name.rpartition("/")[2] for name in wheel if "licenses/" in name}
    assert names == {"LICENSE", "NOTICE"}


def test_weights_stay_small():
    weights = ROOT / "t2i_tools" / "default" / "weights"
    assert sum(path.stat().st_size for path in weights.rglob("*") if path.is_file()) <= 60 * 2**20
    assert not [path for path in weights.rglob("*") if path.suffix in {".pt", ".pth", ".bin", ".ckpt"}]


def test_ci_runs_the_readmes_two_commands():
    printed = subprocess.run([ROOT / ".ci" / "run", "--print"], capture_output=True, text=True, check=True).stdout
    main, tests = printed.splitlines()
    blocks = [block.split("```")[0].strip() for block in (ROOT / "README.md").read_text().split("```bash\n")[1:]]
    assert [main, tests] == blocks[:2]
    assert main.startswith("pip install ") and " && t2i generate " in main
    assert tests.startswith("pip install ") and " && pytest" in tests
