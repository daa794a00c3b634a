import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer

from t2i_tools.cli import doctor, main
from t2i_tools.cli.doctor import attention_backends, devices, examine, installed_versions, missing_extras
from t2i_tools.errors import install

DECLARED = [
    "torch>=2.0",
    "pillow>=11.0",
    "no-such-package-of-ours>=1.0; extra == 'app'",
    'torch>=999; extra == "count"',
    "numpy>=1.0; extra == 'metrics'",
    "t2i-tools[app,count]; extra == 'all'",
    "pytest>=1; extra == 'test'",
]


@pytest.fixture(scope="module")
def report():
    return examine()


def test_json_is_the_report_and_the_exit_code_says_whether_the_core_works(report, capsys):
    try:
        doctor.doctor(as_json=True)
        code = 0
    except typer.Exit as stop:
        code = stop.exit_code
    assert code == bool(report["broken"])
    assert json.loads(capsys.readouterr().out).keys() == report.keys()
    assert not any("cannot" in line or "import" in line for line in report["broken"])


def test_report_is_readable(report, capsys):
    doctor.print_report(report)
    text = capsys.readouterr().out
    assert torch.__version__.split("+")[0] in text
    assert "sdpa math" in text
    assert all(entry["fix"] in text for entry in report["missing"])


def test_detectors_that_cannot_be_opened_come_with_a_command(report):
    assert [entry["works"] for entry in report["detectors"] if "YOLOS" in entry["detectors"]] == [True]
    assert all(entry["fix"].startswith("pip install") for entry in report["detectors"] if not entry["works"])


def test_detectors_of_any_words_need_torchvision(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)  # as where it is not installed
    (entry,) = [one for one in doctor.detector_kinds() if "OWLv2" in one["detectors"]]
    assert (entry["works"], entry["fix"]) == (False, "pip install torchvision")


def test_attention_that_is_said_to_work_works():
    works = {entry["backend"]: entry for entry in attention_backends() if entry["device"] == "cpu"}
    assert works["sdpa math"]["works"]
    assert all(entry["works"] or entry["why"] for entry in works.values())
    assert devices()[0]["device"] == "cpu"


def test_missing_extras_come_with_their_command():
    missing = {entry["what"]: entry for entry in missing_extras(DECLARED)}
    assert set(missing) == {"extra app", "extra count"}
    assert missing["extra app"]["fix"] == "pip install '.[app]'"
    assert "torch>=999" in missing["extra count"]["why"]


def test_versions_of_what_is_declared():
    versions = installed_versions(DECLARED)
    assert torch.__version__.startswith(versions["torch"])
    assert versions["no-such-package-of-ours"] is None
    assert "pytest" not in versions
    assert "t2i-tools" not in versions


def test_a_module_that_is_absent_or_broken_is_told_in_a_line(tmp_path, monkeypatch):
    (tmp_path / "broken_module_of_ours.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor.import_problem("json") is None
    assert doctor.import_problem("absent_module_of_ours") == "absent_module_of_ours is not installed"
    assert "libGL" in doctor.import_problem("broken_module_of_ours")


def test_verbs_on_a_broken_torch(tmp_path):
    """One line that leads to the doctor, who says what it is."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object')\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])

    def t2i(*arguments):
        command = [sys.executable, "-m", "t2i_tools", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})

    made = t2i("generate", "a cat", "--output", str(tmp_path / "cat.png"))
    assert (made.returncode, made.stdout, made.stderr.count("\n")) == (2, "", 1)
    assert "libcudart.so.12" in made.stderr and "t2i doctor" in made.stderr
    told = t2i("doctor", "--json")
    assert told.returncode == 1
    assert any(line.startswith("torch:") and "libcudart" in line for line in json.loads(told.stdout)["broken"])


def test_a_model_is_tried(tiny_folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--try", "--model", str(tiny_folder), "--steps", "2", "--output", str(tmp_path / "card")])
    lines = capsys.readouterr().out.splitlines()
    assert end.value.code == 0
    assert any(line.startswith("ok") and "entropy scaling: acts" in line for line in lines)
    assert lines[-1] == str(tmp_path / "card" / "card.html")
    assert json.loads((tmp_path / "card" / "card.json").read_text())["model"]["native size"] == "64x64"


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (["--output", "x"], "--output goes"),
        (["--model", "y", "--steps", "2"], "--model, --steps go"),
        (["--native", "64x64"], "--native goes"),
    ],
)
def test_options_of_a_try_without_it_are_refused(option, says, capsys):
    with pytest.raises(SystemExit) as end:
        main(["doctor", *option])
    assert end.value.code == 2
    assert capsys.readouterr().err == f"t2i: {says} with --try, which tries every plugin on a model\n"


def test_what_installs_an_extra_works_from_the_checkout():
    """Every extra that a message names exists, and none asks an index for a package that is on none."""
    assert install("app") == "pip install '.[app]' in your clone of t2i-tools"
    code = "".join(path.read_text(encoding="utf-8") for path in Path(doctor.__file__).parents[1].rglob("*.py"))
    named = set(re.findall(r"""install\(["'](\w+)["']\)""", code))
    assert named == {"app", "count", "lora", "metrics", "ray"}
    assert "t2i-tools[" not in code
    project = Path(__file__).parents[2] / "pyproject.toml"
    if project.exists():
        assert all(re.search(rf"^{extra} = \[", project.read_text(), re.MULTILINE) for extra in named)
