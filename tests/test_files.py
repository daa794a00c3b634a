import os
import subprocess
import sys

import pytest

from t2i_tools.errors import InputError
from t2i_tools.files import remove_parts, replacing


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / ("long" * 60 + ".txt")
    with replacing(path) as part:
        part.write_text("first")
    with pytest.raises(KeyError), replacing(path) as part:
        part.write_text("second")
        raise KeyError
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(InputError, match="cannot write .*below: "), replacing(path / "below") as part:
        part.write_text("third")


@pytest.mark.skipif(sys.platform == "win32", reason="tells no dead process there")
def test_what_a_killed_process_left_goes_at_the_next_write(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from t2i_tools.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as part: part.touch(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "report.html"
    for other in (path, tmp_path / "other.html"):
        assert subprocess.run([sys.executable, "-c", code, other]).returncode == -9
    assert len(list(tmp_path.iterdir())) == 2
    with replacing(path) as part:
        part.touch()
        living = part.with_name(part.name.replace(f"-{os.getpid()}.", f"-{os.getppid()}."))
        living.touch()
    with replacing(path) as part:
        part.touch()
    assert living.exists()
    assert len(list(tmp_path.glob(".report.html.*"))) == 1
    assert len(list(tmp_path.glob(".other.html.*"))) == 1


def test_what_a_kill_left_is_removed_and_nothing_else(tmp_path):
    ours, other = tmp_path / "[a]*.png", tmp_path / "a.png"
    for path in (ours, other):
        with pytest.raises(ZeroDivisionError), replacing(path) as part:
            part.touch()
            left = part.with_name(part.name.replace(".png.", ".png.9"))
            left.touch()
            raise ZeroDivisionError
    remove_parts(ours)
    assert [path.name[:7] for path in tmp_path.iterdir()] == [".a.png."]
