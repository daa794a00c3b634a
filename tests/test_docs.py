"""The documentation's Python runs, its commands exist, its links point somewhere."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from support import pipezoo
from support.quick import quick
from support.snippets import open_quick, smaller

import t2i_tools as t2i

ROOT = Path(__file__).parent.parent
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
GENERATED = ("results.md", "imports.md", "names.md", "families.md")

pytestmark = pytest.mark.skipif(not (ROOT / "docs").exists(), reason="needs a checkout")


def pages() -> list[Path]:
    """The pages that somebody wrote."""
    return [page for page in PAGES if page.name not in GENERATED and "_build" not in page.parts]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """Every line of a shell block that calls `t2i`, with its page."""
    lines = [
        (page, line.split("&&")[-1].strip())
        for page in pages()
        for block in blocks(page, "bash")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [(page.name, line) for page, line in lines if line.startswith("t2i ")]


@cache
def verbs():
    """The shell's verbs as click commands, by name."""
    import typer

    from t2i_tools.cli import app

    return typer.main.get_command(app).commands


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_and_option_exists(page, line):
    _, verb, *words = shlex.split(line, comments=True)
    command = verbs()[verb]
    if hasattr(command, "commands"):
        command = command.commands[words[0]]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.split("=")[0] for word in words if word.startswith("-")}
    assert used <= known | {"--help"}


@pytest.mark.parametrize("page", [page for page in pages() if blocks(page, "python")], ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page, monkeypatch, tmp_path, tiny_folder, capsys):
    if page.name == "README.md":
        pytest.skip("tests/test_readme.py runs it")
    monkeypatch.chdir(tmp_path)
    open_quick(monkeypatch)
    monkeypatch.setattr(t2i, "load_bundled", lambda: quick(pipezoo.build("stable_diffusion")))
    names: dict = {}
    for block in blocks(page, "python"):
        exec(compile(smaller(block, tiny_folder), page.name, "exec"), names)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_links_to_files_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [target for target in targets if target and "://" not in target and Path(target).name not in GENERATED]
    assert [target for target in local if not (page.parent / target).exists()] == []
    for name in re.findall(r"`((?:examples|tests|docs|t2i_tools|ui|pipelines)/[\w./-]+\.\w+)`", text):
        assert (ROOT / name).exists() or Path(name).name in GENERATED, name
