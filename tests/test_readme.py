"""README's Python and the short examples run as they stand; on a tiny random model here, which draws no less."""

import os
import re
import runpy
from pathlib import Path

import pytest
from support import pipezoo
from support.quick import quick
from support.snippets import open_quick, smaller

import t2i_tools as t2i

ROOT = Path(__file__).parent.parent
EXAMPLES = ("any_size", "long_prompt", "exact_count", "padding", "drop_in")  # the others are batch jobs with options

pytestmark = pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="needs a checkout")


@pytest.fixture(params=[True, pytest.param(False, marks=pytest.mark.slow)], ids=["tiny", "bundled"])
def model(request, monkeypatch, tmp_path):
    """What `load_bundled` gives: a tiny Stable Diffusion of two steps, or what it does give."""
    monkeypatch.chdir(tmp_path)
    if not request.param:
        return
    open_quick(monkeypatch)
    pipe = quick(pipezoo.build("stable_diffusion"))
    monkeypatch.setattr(t2i, "load_bundled", lambda: pipe)


def snippets():
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_library_is_the_one_asked_for():
    """test_packaging.py runs this file with the built wheel."""
    assert Path(t2i.__file__).is_relative_to(os.environ.get("T2I_TOOLS_FROM", "/"))


def test_readme(model, tiny_folder, capsys):
    assert len(snippets()) >= 4
    names = {}
    for snippet in snippets():
        exec(compile(smaller(snippet, tiny_folder), "README.md", "exec"), names)
    assert names["image"].size


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, model, capsys, tmp_path):
    path = ROOT / "examples" / f"{name}.py"
    statements = path.read_text().split('"""')[2].strip().splitlines()
    assert len([line for line in statements if line.strip() and "import" not in line]) <= 5
    runpy.run_path(str(path))
    assert [file for file in tmp_path.iterdir() if file.suffix == ".png"]
