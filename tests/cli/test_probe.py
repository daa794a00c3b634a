import json

import pytest
from PIL import Image
from support.shell import run_shell

from t2i_tools.cli.probe import usual_judge
from t2i_tools.images.metadata import read_settings
from t2i_tools.workflows.detectors import judge_on


@pytest.fixture
def t2i(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.jsonl").write_text(
        '{"prompt": "two cats", "label": "cat", "count": 2}\n{"prompt": "a red ball", "label": "ball", "count": 1}\n'
    )

    (tmp_path / "size.csv").write_text("prompt,size\ncat,8x8\n")

    def run(*arguments):
        return run_shell(
            capsys, "probe", "--model", str(tiny_folder), "--device", "cpu", "--clip", "bundled", *arguments
        )

    return run


def test_a_prompt(t2i, tmp_path):
    code, out, err = t2i("two cats", "--steps", 1, "--seed", 3, "--output", "p", "--conditions", "pads,eos,pads:1/5")
    assert (code, err) == (0, "")
    for text in ("encoder  pads 1 of 5", "verdict: undecided", "not run", "padding: end token", "p/probe.html"):
        assert text in out
    told = json.loads((tmp_path / "p" / "probe.json").read_text())
    assert [cell["condition"] for cell in told["cells"]] == ["full", "prompt", "pads", "clean", "eos", "pads 1 of 5"]
    assert told["settings"]["seed"] == 3
    assert (told["carries"]["answer"], len(told["paper"])) == ("undecided", 6)
    page = (tmp_path / "p" / "probe.html").read_text()
    assert "LLaMA-UNet" in page and "pads 1 of 5" in page and "data:image/png" in page
    assert read_settings(tmp_path / "p" / "probe.png")["seed"] == 3
    with Image.open(tmp_path / "p" / "probe.png") as image:
        assert image.width > 6 * 64


def test_policies_are_compared_and_one_is_advised(t2i, tmp_path):
    code, out, err = t2i("two cats", "--policies", "--steps", 1, "--seed", 3, "--output", "p")
    assert (code, err) == (0, "")
    for text in ("keep-one", "advice: as trained: 1 prompts decide nothing", "policy 'none'", "p/policies.html"):
        assert text in out
    told = json.loads((tmp_path / "p" / "policies.json").read_text())
    assert [cell["policy"] for cell in told["cells"]] == ["as trained", "mask", "trim", "keep-one", "filler"]
    assert told["seeds"] == [3, 4]
    assert all(len(cell["seconds"]) == 2 for cell in told["cells"])
    assert told["cells"][0]["similarity"] == pytest.approx([100, 100], abs=1e-3)
    assert "keep-one" in (tmp_path / "p" / "policies.html").read_text()


@pytest.mark.slow  # 80 images
def test_without_a_prompt_there_are_sixteen(t2i, tmp_path):
    assert t2i("--steps", 1, "--size", "64x64", "--output", "p", "--quiet")[0] == 0
    told = json.loads((tmp_path / "p" / "probe.json").read_text())
    assert (len(set(told["prompts"])), told["settings"]["seed"]) == (16, 0)
    assert told["carries"]["answer"] in ("yes", "no", "undecided")


def test_the_judge_of_the_bundled_model_opens():
    assert "apple" in judge_on(usual_judge(True, "bundled"), None, ["apple"], None).labels
    assert usual_judge(False, "bundled") is usual_judge(True, "a/b") is None


@pytest.mark.slow  # 32 images of the bundled model
def test_without_a_prompt_the_bundled_models_objects_are_counted(tmp_path, capsys):
    options = ("--steps", 1, "--conditions", "full,clean", "--output", tmp_path / "p", "--quiet")
    assert run_shell(capsys, "probe", *options)[0] == 0
    assert "objects" in (tmp_path / "p" / "probe.json").read_text()


def test_a_negative_prompt_changes_the_images(t2i, tmp_path):
    for folder, more in (("a", ()), ("b", ("--negative", "a dog"))):
        assert t2i("cat", "--steps", 1, "--seed", 3, "--guidance", 7, "--output", folder, "--quiet", *more)[0] == 0
    plain, negative = (read_settings(tmp_path / name / "probe.png") for name in "ab")
    assert "negative_prompt" not in plain and negative["negative_prompt"] == "a dog"
    with Image.open(tmp_path / "a" / "probe.png") as one, Image.open(tmp_path / "b" / "probe.png") as other:
        assert one.tobytes() != other.tobytes()


def test_a_file_with_objects(t2i):
    code, out, err = t2i(
        "--prompts", "p.jsonl", "--steps", 1, "--seed", 3, "--number", 2, "--judge", "bundled-judge", "--json"
    )
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["prompts"], told["seeds"]) == (["two cats"] * 2 + ["a red ball"] * 2, [3, 4] * 2)
    assert all(len(cell["recall"]) == 4 for cell in told["cells"])
    assert "swapped" in [cell["condition"] for cell in told["cells"]]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("",), "the prompt is empty"),
        (("a", "--prompts", "p.jsonl"), "either a prompt or --prompts"),
        (("size.csv",), "give it by --prompts"),
        (("--prompts", "absent.txt"), "absent.txt"),
        (("--prompts", "size.csv"), "'size' cannot be set per row"),
        (("a", "--conditions", "words"), "unknown condition 'words'"),
        (("a", "--conditions", "rows:500-600"), "'rows 500:600' has none of the"),
        (("a", "--clean", "none"), "choose empty, pad, zeros"),
        (("a", "--number", 0), "'--number'"),
        (("a", "--length", 9), "takes no max_sequence_length"),
        (("a", "--judge", "bundled-judge"), "columns class and count"),
        (("a", "--output", "p.jsonl"), "not a folder"),
        (("a", "--size", "big"), "WIDTHxHEIGHT"),
        (("a", "--clip", "none"), "reports the CLIP score"),
        (("a", "--steps", 0), "'--steps'"),
    ],
)
def test_wrong_input(t2i, arguments, says):
    code, out, err = t2i(*arguments, *(() if "--steps" in arguments else ("--steps", 1)))
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
