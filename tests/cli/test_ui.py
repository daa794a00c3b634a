"""The verb alone: what it refuses before a server is started."""

import socket

import pytest

from t2i_tools.cli import main
from t2i_tools.errors import InputError
from t2i_tools.workflows.server_options import parse_login


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "/no/such/folder"], "--models /no/such/folder is not a folder"),
        (["--auth", "alice"], "--auth takes USER:PASSWORD"),
        (["--auth-file", "/no/such/file"], "cannot read --auth-file"),
        (["--dtype", "int8"], "unknown dtype 'int8'"),
        (["--port", "99999999"], "Invalid value for '--port'"),
        (["--max-steps", "0"], "Invalid value for '--max-steps'"),
    ],
)
def test_bad_options_get_one_line(arguments, message, capsys):
    pytest.importorskip("gradio")
    with pytest.raises(SystemExit) as left:
        main(["ui", *arguments])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    pytest.importorskip("gradio")
    from t2i_tools.ui.options import AppOptions
    from t2i_tools.ui.service import Service

    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        Service(AppOptions(output=tmp_path / "file"))


def test_a_password_may_have_a_colon():
    assert parse_login("alice:a:b") == ("alice", "a:b")


def test_a_port_that_is_taken_gets_one_line(tmp_path, capsys):
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as left:
        main(["ui", "--port", str(taken.getsockname()[1]), "--output", str(tmp_path)])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("t2i: cannot serve at 127.0.0.1")


@pytest.mark.parametrize(
    ("model", "message"),
    [("nofolder", "unknown model 'nofolder'"), ("gone.safetensors", "no such file"), ("empty", "no model_index.json")],
)
def test_a_model_that_is_none_ends_before_a_server_begins(model, message, tmp_path, capsys, monkeypatch):
    pytest.importorskip("gradio")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as left:
        main(["ui", "--model", model, "--output", str(tmp_path / "out")])
    captured = capsys.readouterr()
    assert (left.value.code, captured.out) == (2, "")
    (line,) = captured.err.splitlines()
    assert line.startswith("t2i: ") and message in line
