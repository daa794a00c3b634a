import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import t2i_tools


def test_names_resolve_lazily():
    from t2i_tools.errors import InputError

    assert t2i_tools.InputError is InputError
    assert set(t2i_tools.__all__) <= set(dir(t2i_tools))
    assert all(getattr(t2i_tools, name) is not None for name in t2i_tools.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = t2i_tools.nonsense


@pytest.mark.parametrize("checkout", [True, False])
def test_the_folders_beside_a_checkout_belong_to_the_package(tmp_path, checkout):
    (tmp_path / "t2i_tools").mkdir()
    for name in ("__init__.py", "_checkout.py", "_version.py"):
        shutil.copy(Path(t2i_tools.__file__).with_name(name), tmp_path / "t2i_tools")
    for name in ("ui", "pipelines"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    if checkout:
        (tmp_path / "pyproject.toml").touch()
    code = "import t2i_tools.ui, t2i_tools.pipelines"  # -S: an editable installation would find them anywhere
    result = subprocess.run(
        [sys.executable, "-IS", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"], capture_output=True
    )
    assert (result.returncode == 0) is checkout


@pytest.mark.parametrize(
    ("module", "heavy"),
    [("t2i_tools", "torch"), ("t2i_tools.cli", "torch"), ("t2i_tools.evaluation.studies.advice", "scipy.stats")],
)
def test_what_takes_seconds_is_not_imported(module, heavy):
    code = f"import sys, {module}; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_module_has_one_name_only():
    code = (
        "import sys, t2i_tools, t2i_tools.ui.values, t2i_tools.pipelines.adaptive\n"
        "from importlib.util import find_spec\n"
        "files = [m.__file__ for n, m in sys.modules.items() if n.split('.')[0] in ('t2i_tools', 'ui', 'pipelines')]\n"
        "assert len(files) == len(set(files))\n"
        "assert not any(find_spec(f't2i_tools.{name}') for name in ('t2i_tools', 'tests', 'examples', 'docs'))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
