import subprocess
import sys
import warnings

import pytest
from support.shell import complains, run_shell

from t2i_tools.cli import _debug_first

WARNS = """
import warnings
import t2i_tools.workflows.open_model as opened
opened.silence_libraries()
warnings.warn("the library's word")
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Neither variable is set, and what the shell sets goes with the test."""
    for name in ("T2I_DEBUG", "PYTHONWARNINGS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_one_line_without_it(capsys):
    complains(run_shell(capsys, "generate", "a cat", "--model", "/nofile"), "unknown model")


@pytest.mark.parametrize("place", [0, 1, 4])
def test_the_traceback_stands_before_the_line(capsys, place):
    words = ["generate", "a cat", "--model", "/nofile"]
    words.insert(place, "--debug")
    code, out, err = run_shell(capsys, *words)
    assert (code, out) == (2, "")
    assert "Traceback" in err and "in open_model" in err
    assert err.splitlines()[-1].startswith("t2i: unknown model")


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_the_variable_does_the_same(capsys, monkeypatch, value, shown):
    monkeypatch.setenv("T2I_DEBUG", value)
    _, _, err = run_shell(capsys, "generate", "a cat", "--model", "/nofile")
    assert ("Traceback" in err) == shown


def test_behind_two_dashes_nothing_is_an_option():
    assert _debug_first(["tokens", "--", "--debug"]) == ["tokens", "--", "--debug"]
    assert _debug_first(["tokens", "a", "--debug", "--", "b"]) == ["--debug", "tokens", "a", "--", "b"]


def test_opening_a_model_leaves_warnings_alone():
    """As in a server, which opens models while others of its threads may warn."""
    run = subprocess.run([sys.executable, "-c", WARNS], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    assert "the library's word" in run.stderr


def test_the_shell_ignores_them_unless_the_user_has_chosen(capsys, monkeypatch):
    with warnings.catch_warnings():
        monkeypatch.setattr(sys, "warnoptions", [])
        run_shell(capsys, "generate", "a cat", "--model", "/nofile")
        assert warnings.filters[0][0] == "ignore"
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(sys, "warnoptions", ["always"])
        run_shell(capsys, "generate", "a cat", "--model", "/nofile")
        assert warnings.filters[0][0] == "always"
