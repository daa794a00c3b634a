"""The verb alone: what it refuses before a server is started."""

import socket

import pytest

from t2i_tools.cli import main
from t2i_tools.cli.ui import parse_login
from t2i_tools.errors import InputError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "/no/such/folder"], "--models /no/such/folder is not a folder"),
        (["--auth", "alice"], "--auth takes USER:PASSWORD"),
        (["--port", "99999999"], "Invalid value for '--port'"),
        (["--steps", "0"], "Invalid value for '--steps'"),
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
    from t2i_tools.ui.desk import Desk
    from t2i_tools.ui.options import AppOptions

    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        Desk(AppOptions(output=tmp_path / "file"))


def test_a_password_may_have_a_colon():
    assert parse_login("alice:a:b") == ("alice", "a:b")


def test_a_port_that_is_taken_gets_one_line(tmp_path, capsys):
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as left:
        main(["ui", "--port", str(taken.getsockname()[1]), "--output", str(tmp_path)])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("t2i: cannot serve at 127.0.0.1")
