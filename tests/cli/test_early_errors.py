"""What is wrong with the rest of a command is said before a model is opened: here there is none to open."""

import pytest
from support.shell import complains, run_shell

PROBE, COUNT = ("probe", "a cat"), ("count", "apples", "2", "--counter", "bundled_counter")
GRID, SIZES = ("grid", "a cat", "--axis", "steps=1,2", "-o", "out"), ("sizes", "a cat", "-o", "out")
GENERATE, EVALUATE = ("generate", "a cat"), ("evaluate", "counts", "-o", "out", "--judge", "bundled-judge")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Somebody else's folder, and the one to work in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("all of it")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "color.txt").write_text("red\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((*PROBE, "--conditions", "words"), "unknown condition 'words'"),
        ((*PROBE, "--size", "big"), "WIDTHxHEIGHT"),
        ((*PROBE, "--judge", "bundled-judge"), "columns class and count"),
        ((*PROBE, "--clip", "nowhere"), "nowhere"),
        ((*PROBE, "--seed", "-1"), "seed -1 is out of range"),
        (("probe", "--prompts", "nowhere.csv"), "cannot read prompts file nowhere.csv"),
        ((*COUNT, "--prompt", "seven apples"), 'has no "{count}"'),
        ((*COUNT, "--lr", "1"), "--lr does nothing"),
        (("advise", "big"), "WIDTHxHEIGHT"),
        ((*GENERATE, "--lora", "nofile.safetensors"), "no such file: nofile.safetensors"),
        ((*GENERATE, "--vae", "nofile.safetensors"), "no such file: nofile.safetensors"),
        ((*GENERATE, "--embedding", "nofile.safetensors"), "nofile.safetensors"),
        ((*GENERATE, "--count-token", "nofile.safetensors"), "nofile.safetensors"),
        ((*GENERATE, "--long-prompts", "stretch", "--long-clip", "nofile.pt"), "no such file: nofile.pt"),
        ((*GENERATE, "--dtype", "int8"), "unknown dtype 'int8'"),
        ((*GENERATE, "--fit", "snap"), "does nothing without a size"),
        ((*GENERATE, "--wildcards", "lists"), "no prompt names a list"),
        ((*SIZES, "--sizes", ""), "WIDTHxHEIGHT"),
        ((*SIZES, "--label", "cat", "--judge", "nowhere"), "unknown detector 'nowhere'"),
        ((*SIZES, "--judge", "bundled-judge"), "add --label CLASS"),
        ((*SIZES, "--label", "cat", "--judge", "bundled_counter"), "cannot judge what it steered"),
        ((*COUNT[:3], "--counter", "bundled-judge"), "a judge only evaluates"),
        ((*COUNT[:3],), "--counter is needed"),
        ((*GRID, "--judge", "bundled-judge"), "add --label CLASS"),
        ((*GRID, "--axis", "speed=1"), "unknown axis 'speed'"),
        ((*GRID, "--fit", "snap"), "does nothing without a size"),
        ((*EVALUATE, "--methods", "magic"), "unknown method 'magic'"),
        ((*EVALUATE, "--counts", "many"), "not whole numbers"),
        (("doctor", "--try", "--label", "cat"), "add --detector"),
    ],
)
def test_before_the_model(arguments, says, capsys, folder):
    complains(run_shell(capsys, *arguments, "--model", "/nowhere"), says)
    assert not (folder / "out").exists()


@pytest.mark.parametrize("verb", [PROBE, COUNT, GRID[:-2], SIZES[:-2], ("doctor", "--try"), EVALUATE])
def test_a_folder_of_other_files_is_refused_by_every_verb(verb, capsys, folder):
    complains(run_shell(capsys, *verb, "--output", "full", "--model", "/nowhere"), "other files in it and no")
    assert [path.name for path in (folder / "full").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("generate", "two", "cats"), "in quotes"),
        (("count", "apples", "-1"), "-1 is not an option, and no argument can be below 0"),
        (("generate", "a cat", "--sed", "1"), "No such option:? '?--sed"),
        (("count", "apples", "2", "--number", "0"), "--number"),
    ],
)
def test_slips_of_the_hand(arguments, says, capsys):
    complains(run_shell(capsys, *arguments), says)
