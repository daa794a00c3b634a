"""`t2i settings` on files of several tools."""

import json

import pytest
from PIL import Image
from support.settings_writers import WRITERS, Made
from support.shell import complains, run_shell

TOOLS = ("a1111.png", "a1111.jpg", "a1111.webp", "forge.png", "sdnext.jpg")


@pytest.fixture
def t2i(tmp_path, monkeypatch, capsys):
    """Run `t2i settings` among files of TOOLS and one without settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name in TOOLS:
        WRITERS[name][3](Made(), tmp_path / name)
    Image.new("RGB", (8, 8)).save(tmp_path / "bare.png")
    (tmp_path / "notes.txt").write_text("no image")
    return lambda *arguments: run_shell(capsys, "settings", *arguments)


def test_a_table_per_file(t2i):
    code, out, err = t2i("a1111.png", "sdnext.jpg")
    assert (code, err) == (0, "")
    for text in ("a1111.png (AUTOMATIC1111)", "sdnext.jpg (SD.Next)", "two cats, one: asleep", "832x1216"):
        assert text in out
    assert out.count(str(Made.seed)) == 2


def test_json_has_one_object_per_file(t2i):
    code, out, err = t2i(*TOOLS, "--json")
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert [(row["file"], row["tool"]) for row in rows] == [(name, WRITERS[name][0]) for name in TOOLS]
    for row in rows:
        assert (row["prompt"], row["seed"], row["steps"], row["size"]) == (
            Made.prompt,
            Made.seed,
            Made.steps,
            "832x1216",
        )


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (("nowhere.png",), "nowhere.png"),
        (("notes.txt",), "notes.txt"),
        (("bare.png",), "bare.png"),
        ((), "FILE"),
    ],
)
def test_files_without_settings(t2i, files, says):
    complains(t2i(*files), says)


def test_what_can_be_read_is_shown_beside_a_file_that_cannot(t2i):
    code, out, err = t2i("nowhere.png", "a1111.png", "bare.png", "--json")
    assert code == 2
    assert [row["file"] for row in json.loads(out)] == ["a1111.png"]
    first, second = err.splitlines()
    assert "nowhere.png" in first and "bare.png" in second
