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
    shutil.copy(Path(t2i_tools.__file__), tmp_path / "t2i_tools")
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
