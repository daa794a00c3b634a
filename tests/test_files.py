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
