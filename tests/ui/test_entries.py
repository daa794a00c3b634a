"""`t2i ui` and `python -m t2i_tools.ui` have one table of options."""

import sys
from dataclasses import fields

import pytest

pytest.importorskip("gradio")

from t2i_tools.errors import InputError
from t2i_tools.ui import AppOptions, __main__ as entry
from t2i_tools.ui.registry import Choice, Registry
from t2i_tools.ui.server import check_host
from t2i_tools.workflows.limits import Limits
from t2i_tools.workflows.server_options import ServerOptions, flag_of

ARGUMENTS = (
    *(
        "--port",
        "7900",
        "--host",
        "0.0.0.0",
        "-o",
        "work",
        "-m",
        "tiny",
        "--hub",
        "a/b",
        "--hub",
        "c/d",
        "--auth",
        "al:p",
    ),
    *("--root-path", "/t2i", "--allowed-host", "t2i.example", "--open", "--device", "cpu", "--dtype", "bf16"),
    *("--max-steps", "9", "--max-job-minutes", "5"),
)


def test_both_entries_start_the_same(tmp_path, monkeypatch):
    import t2i_tools.ui
    from t2i_tools.cli import main

    started = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(t2i_tools.ui, "launch", started.append, raising=False)
    monkeypatch.setattr(entry, "launch", started.append)
    (tmp_path / "logins").write_text("bob:secret\n")
    arguments = [*ARGUMENTS, "--auth-file", "logins", "--models", str(tmp_path)]
    entry.main(arguments)
    with pytest.raises(SystemExit):
        main(["ui", *arguments])
    first, second = started
    assert first == second
    assert (first.port, first.host, first.model, first.hub) == (7900, "0.0.0.0", "tiny", ("a/b", "c/d"))
    assert (first.auth, first.root_path) == ((("al", "p"), ("bob", "secret")), "/t2i")
    assert (first.allowed_hosts, first.browser, first.dtype) == (("t2i.example",), True, "bfloat16")
    assert (first.limits.steps, first.limits.job_minutes, first.limits.keep_days) == (9, 5, 30)


def test_without_options_both_have_the_defaults(monkeypatch):
    started = []
    monkeypatch.setattr(entry, "launch", started.append)
    entry.main([])
    assert started == [AppOptions()]


def test_the_help_names_every_option(capsys):
    with pytest.raises(SystemExit):
        entry.main(["--help"])
    shown = capsys.readouterr().out
    assert all(flag_of(one) in shown for one in (*fields(ServerOptions), *fields(Limits)))


@pytest.mark.parametrize(
    "arguments", [["--port", "0"], ["--max-steps", "0"], ["--auth", "al"], ["--models", "nowhere"]]
)
def test_wrong_options_of_the_module_end_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        entry.main(arguments)
    assert left.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_module_does_not_go_through_the_shell():
    assert not [name for name in vars(sys.modules["t2i_tools.ui.__main__"]) if name in ("typer", "cli")]


@pytest.mark.parametrize("host", ["foo.invalid", "203.0.113.7"])
def test_a_host_that_is_not_here(host):
    with pytest.raises(InputError, match=f"--host {host} is not an address of this machine"):
        check_host(host)


def test_a_host_that_is_here():
    check_host("127.0.0.1")
    check_host("localhost")


def test_a_checkpoint_beside_a_folder_of_its_name_and_with_its_configuration(tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model_index.json").write_text("{}")
    for name in ("tiny.safetensors", "other.safetensors"):
        (tmp_path / name).touch()
    (tmp_path / "configs" / "other").mkdir(parents=True)
    registry = Registry(AppOptions(models=tmp_path))
    assert list(registry.models()) == ["bundled", "bundled-few-steps", "other", "tiny", "tiny.safetensors"]
    assert registry.options(Choice("other")).config == str(tmp_path / "configs" / "other")
    assert registry.options(Choice("tiny.safetensors")).config is None
    assert registry.options(Choice("tiny")).config is None
