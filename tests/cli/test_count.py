import json
import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.shell import complains, run_shell
from support.waiting import wait_until

from t2i_tools.cli import main, options
from t2i_tools.cli.count import parse_counts
from t2i_tools.counting import METHODS, CountToken
from t2i_tools.detectors import YoloCounter
from t2i_tools.detectors.yolo import build_yolo
from t2i_tools.errors import InputError
from t2i_tools.images.metadata import read_settings
from t2i_tools.models.loading import open_pipeline
from t2i_tools.workflows.count import default_template, kept_line, yield_line


@pytest.fixture(scope="session")
def yolo_file(tmp_path_factory):
    """A real YOLO with random weights, which sees a few apples in anything."""
    torch.manual_seed(0)
    net, _ = build_yolo("yolo11n.yaml", 2)
    path = tmp_path_factory.mktemp("yolo") / "yolo.safetensors"
    YoloCounter(net, ("apple", "ball"), threshold=0.0001, architecture="yolo11n.yaml").save(path)
    return path


@pytest.fixture
def arguments(tiny_folder, yolo_file):
    return ["count", "--model", str(tiny_folder), "--counter", str(yolo_file), "--steps", "2", "--seed", "7"]


@pytest.fixture
def t2i(arguments, tmp_path, monkeypatch, capsys):
    """Run `t2i count` on the tiny model in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*more):
        return run_shell(capsys, *arguments, *more)

    return run


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_image_token_strip_and_summary(t2i, tmp_path):
    code, out, err = t2i("apples", 200, "--method", "token", "--budget", 12)
    assert (code, err) == (0, "")
    folder = tmp_path / "outputs" / "200-apples"
    kept = r"\d+ % of the plain image's objects in place"
    assert re.fullmatch(rf"outputs/200-apples/0001-200-apples-7\.png  apples: \d+, not exact, {kept}\n", out)
    assert files(folder) == [
        "0001-200-apples-7.png",
        "count.json",
        "steps/0001-200-apples-7.png",
        "tokens/0001-200-apples-7.safetensors",
    ]
    (row,) = json.loads((folder / "count.json").read_text())["images"]
    settings = read_settings(folder / "0001-200-apples-7.png")
    assert settings["count"] == {
        "counted": row["counted"],
        "exact": False,
        "tokens": row["tokens"],
        "noise": None,
    }
    assert settings["seed"] == 7 and settings["steps"] == 2
    token = CountToken.load(folder / row["tokens"][0])
    assert (token.n, token.label) == (200, "apples")
    assert settings["prompt"] == row["prompt"] == token.prompt("a photo of {count} apples")
    assert len(row["history"]) >= 3 and row["compute"]["backward"] > 0
    with Image.open(folder / row["strip"]) as strip:
        assert strip.width == 6 + 70 * len(row["history"])


def test_the_learned_noise_makes_the_image_again(t2i, tiny_folder, tmp_path):
    assert t2i("apples", 200, "--method", "noise", "--budget", 6, "--guidance", 1, "--output", "a")[0] == 0
    (row,) = json.loads((tmp_path / "a" / "count.json").read_text())["images"]
    assert row["tokens"] == [] and row["compute"]["backward"] > 0
    pipe = open_pipeline(tiny_folder)
    pipe.set_progress_bar_config(disable=True)
    latents = load_file(tmp_path / "a" / row["noise"])["latents"]
    again = pipe(row["prompt"], latents=latents, num_inference_steps=2, guidance_scale=1.0).images[0]
    with Image.open(tmp_path / "a" / row["file"]) as image:
        assert np.abs(np.asarray(image, dtype=int) - np.asarray(again, dtype=int)).max() <= 1


def test_json(t2i, tmp_path):
    code, out, err = t2i("apples", 200, "--budget", 2, "--method", "best_of", "--number", 2, "--json", "--output", "a")
    rows = json.loads(out)
    assert (code, err) == (0, "")
    assert [row["file"] for row in rows] == ["a/0001-200-apples-7.png", "a/0002-200-apples-8.png"]
    assert all(row["tokens"] == [] and row["compute"]["passes"] == 8 for row in rows)


def test_exactly_what_the_counter_sees_is_delivered_and_the_rest_rejected(t2i, tmp_path):
    plain = ("--method", "plain", "--quiet")
    t2i("apples", 200, *plain, "--number", 4, "--output", "all")
    found = [row["counted"]["apples"] for row in json.loads((tmp_path / "all" / "count.json").read_text())["images"]]
    wanted = max(set(found), key=found.count)
    code, _, err = t2i(
        "apples", wanted, "--method", "plain", "--number", 1, "--until-exact", "--output", "some", "--budget", 9
    )
    first = found.index(wanted)
    assert code == 0
    assert (
        len(files(tmp_path / "some" / "rejected")) == first if first else not (tmp_path / "some" / "rejected").exists()
    )
    assert f"some/{first + 1:04}-{wanted}-apples-{7 + first}.png".split("/")[1] in files(tmp_path / "some")
    assert re.fullmatch(rf"1 of 1 exact, yield {100 / (first + 1):.0f} %, \d+ s an exact image\n", err)


def test_too_few_exact_ones_are_exit_code_3(t2i, tmp_path):
    code, out, err = t2i("apples", 200, "--number", 2, "--until-exact", "--budget", 2, "--method", "best_of")
    assert code == 3
    assert err == "0 of 2 exact, yield 0 %\n"
    folder = tmp_path / "outputs" / "200-apples"
    images = [name for name in files(folder) if name.endswith(".png") and not name.startswith("steps")]
    assert images == ["rejected/0001-200-apples-7.png", "rejected/0002-200-apples-8.png"]
    rows = json.loads((folder / "count.json").read_text())["images"]
    assert sum(row["compute"]["passes"] / row["image_passes"] for row in rows) <= 4


def test_two_classes(t2i, tmp_path):
    code, out, err = t2i("apples", 90, "balls", 80, "--budget", 6, "--method", "token", "--output", "both")
    assert code == 0
    (row,) = json.loads((tmp_path / "both" / "count.json").read_text())["images"]
    assert re.fullmatch("a photo of <count-90-apples>.* apples and <count-80-balls>.* balls", row["prompt"])
    assert set(row["counted"]) == {"apples", "balls"}
    assert len(row["tokens"]) == 2


def test_a_token_is_used_again_by_generate(t2i, tiny_folder, tmp_path, capsys):
    t2i("apples", 200, "--method", "token", "--budget", 4, "--output", "a")
    token = tmp_path / "a" / "tokens" / "0001-200-apples-7.safetensors"

    def generate(prompt, name):
        with pytest.raises(SystemExit) as left:
            main(
                ["generate", prompt, "--model", str(tiny_folder), "--steps", "2", "--seed", "1", "--count-token", *name]
            )
        return left.value.code, capsys.readouterr().err

    assert generate("two {count} cats", [str(token), "--output", "one.png"])[0] == 0
    written = CountToken.load(token).prompt("two {count} cats")
    assert generate(written, [str(token), "--output", "two.png"])[0] == 0
    assert generate("two {count} cats", [str(token), "--output", "none.png", "--compare"])[0] == 2
    with Image.open("one.png") as one, Image.open("two.png") as two:
        assert one.tobytes() == two.tobytes()
    assert read_settings("one.png")["count_token"] == [{"file": token.name, "word": "<count-200>", "n": 200}]
    code, err = generate("two {count} cats", ["nowhere.safetensors"])
    assert (code, err) == (2, "t2i: no such file: nowhere.safetensors\n")


def outcome(folder):
    """Every byte of a run but its times."""
    summary = json.loads((folder / "count.json").read_text())
    for row in summary["images"]:
        del row["compute"]["seconds"]
        for step in row["history"]:
            del step["seconds"]
    content = {name: (folder / name).read_bytes() for name in files(folder) if name != "count.json"}
    return {**content, "count.json": summary}


@pytest.mark.slow
def test_after_a_kill_the_same_command_goes_on_to_the_same_bytes(arguments, tmp_path):
    job = [*arguments, "apples", "200", "--method", "token", "--budget", "60", "--number", "2", "--output"]
    command = [sys.executable, "-c", "import sys; from t2i_tools.cli import main; main(sys.argv[1:])", *job]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    folder = tmp_path / "killed"
    process = subprocess.Popen([*command, str(folder)], env=environment, stdout=subprocess.DEVNULL)
    wait_until(lambda: process.poll() is not None or (folder / ".search-0001.safetensors").exists(), 250)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(folder.glob("*.png"))
    for place in (folder, tmp_path / "whole"):
        subprocess.run([*command, str(place)], env=environment, check=True, stdout=subprocess.DEVNULL)
    assert outcome(folder) == outcome(tmp_path / "whole")
    assert ".search-0001.safetensors" not in files(folder)


def test_ctrl_c_delivers_the_best_so_far(t2i, tmp_path, monkeypatch):
    from t2i_tools.counting.search import Search

    step = Search.__next__

    def interrupted(search):
        if len(search.history) == 2:
            raise KeyboardInterrupt
        return step(search)

    monkeypatch.setattr(Search, "__next__", interrupted)
    assert t2i("apples", 200, "--method", "token", "--output", "a")[0] == 130
    assert "0001-200-apples-7.png" in files(tmp_path / "a") and ".search-0001.safetensors" in files(tmp_path / "a")
    monkeypatch.undo()


def test_a_finished_run_is_told_again_and_another_one_is_refused(t2i, tmp_path):
    first = t2i("apples", 200, "--method", "plain", "--output", tmp_path / "a")
    before = {name: (tmp_path / "a" / name).stat().st_mtime_ns for name in files(tmp_path / "a") if "png" in name}
    assert t2i("apples", 200, "--method", "plain", "--output", tmp_path / "a") == first
    assert before == {name: (tmp_path / "a" / name).stat().st_mtime_ns for name in before}
    complains(t2i("apples", 201, "--method", "plain", "--output", tmp_path / "a"), "holds a count with other settings")


@pytest.mark.parametrize("name", ["0001-200-apples-7.png", "steps/0002-200-apples-8.png"])
def test_a_finished_image_that_is_gone_is_searched_for_again(t2i, tmp_path, name):
    command = ("apples", 200, "--method", "best_of", "--budget", 2, "--number", 2, "--output", "a")
    first = t2i(*command)
    whole = {path: (tmp_path / "a" / path).read_bytes() for path in files(tmp_path / "a") if path != "count.json"}
    (tmp_path / "a" / name).unlink()
    assert t2i(*command)[:2] == first[:2]
    assert whole == {path: (tmp_path / "a" / path).read_bytes() for path in files(tmp_path / "a") if path in whole}
    assert files(tmp_path / "a") == sorted([*whole, "count.json"])


def test_searching_again_may_be_interrupted(t2i, tmp_path, monkeypatch):
    from t2i_tools.counting.search import Search

    command = ("apples", 100, "--method", "best_of", "--budget", 6, "--output", "a")
    first = t2i(*command)
    image = tmp_path / "a" / json.loads((tmp_path / "a" / "count.json").read_text())["images"][0]["file"]
    whole = {path: (tmp_path / "a" / path).read_bytes() for path in files(tmp_path / "a") if path != "count.json"}
    image.unlink()
    go_on = Search.__next__

    def interrupted(search):
        if len(search.history) == 1:
            raise KeyboardInterrupt
        return go_on(search)

    monkeypatch.setattr(Search, "__next__", interrupted)
    assert t2i(*command)[0] == 130
    assert image.read_bytes() != whole[image.name]
    monkeypatch.setattr(Search, "__next__", go_on)
    assert t2i(*command)[:2] == first[:2]
    assert whole == {path: (tmp_path / "a" / path).read_bytes() for path in files(tmp_path / "a") if path in whole}
    assert files(tmp_path / "a") == sorted([*whole, "count.json"])


def test_what_early_looks_were_worth_is_carried_from_image_to_image(t2i, tmp_path):
    more = ("apples", 200, "--method", "best_of", "--early-look", "--steps", 8, "--budget", 3, "--output", "a")
    assert t2i(*more, "--number", 2)[0] == 0
    summary = json.loads((tmp_path / "a" / "count.json").read_text())
    assert summary["run"]["options"]["early_look"] is True
    (record,) = summary["looks"].values()
    looks = [step["look"] for image in summary["images"] for step in image["history"] if step.get("look")]
    assert sum(record["seen"]) == len(looks) >= len(summary["images"])
    gone = (tmp_path / "a" / summary["images"][0]["file"]).rename(tmp_path / "gone.png")
    complains(t2i(*more, "--number", 2), "is missing: restore it, or start over in another folder")
    gone.rename(tmp_path / "a" / summary["images"][0]["file"])
    (tmp_path / "a" / "count.json").write_text(json.dumps({**summary, "looks": {"of": {"seen": 1}}}))
    complains(t2i(*more, "--number", 2), "cannot read the early looks in a/count.json")


def test_the_image_is_kept(t2i, tmp_path):
    assert t2i("apples", 200, "--keep-image", "--budget", 4, "--output", "a")[0] == 0
    summary = json.loads((tmp_path / "a" / "count.json").read_text())
    assert {seed for step in summary["images"][0]["history"] for seed in step["seeds"]} == {7}


def test_what_was_kept_of_the_plain_image_is_told(t2i, tmp_path):
    code, out, err = t2i("apples", 200, "--method", "best_of", "--budget", 3, "--output", "a")
    (row,) = json.loads((tmp_path / "a" / "count.json").read_text())["images"]
    assert 0 <= row["kept"] <= 1 and row["similarity"] is None  # this model has no CLIP beside it
    assert out.endswith(f", {100 * row['kept']:.0f} % of the plain image's objects in place\n")
    again = kept_line({**row, "similarity": 0.974})
    assert again.endswith("objects in place, CLIP-I 0.97")
    assert kept_line({**row, "history": row["history"][:1]}) == ""


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["apples"], "'apples' is not CLASS N"),
        (["apples", "seven"], "is not CLASS N"),
        (["apples", "2", "apples", "3"], "names a class twice"),
        (["apples", "0"], "count 0 is out of range: use 1 or more"),
        (["dragons", "2"], "does not know 'dragons', only apple, ball"),
        (["apples", "2", "--prompt", "seven apples"], 'has no "{count}"'),
        (["apples", "2", "balls", "3", "--label", "apple"], "--label goes with one class"),
        (["apples", "2", "--method", "magic"], "unknown method 'magic': choose plain"),
        (["apples", "2", "--counter", "bundled_second_judge"], "a judge only evaluates"),
        (["apples", "2", "--counter", "nowhere.safetensors"], "no such file: nowhere.safetensors"),
        (["apples", "2", "--lr", "1"], r"--lr does nothing with --method bisection\+best_of: it goes with token"),
        (["apples", "2", "--lr", "1", "--method", "noise"], "--lr does nothing"),
        (["apples", "2", "--grad-steps", "2", "--method", "best-of"], "--grad-steps does nothing"),
        (["apples", "2", "--checkpointing"], "--checkpointing does nothing"),
        (["apples", "2", "--method", "token", "--grad-steps", "9", "--steps", "3"], "more than the 3 denoising steps"),
        (["apples", "2", "--early-look"], "2 steps are too few for an early look"),
        (["apples", "2", "--keep-image", "--method", "best_of"], "--keep-image does nothing with"),
        (["apples", "2", "--seed", "-1"], "seed -1 is out of range"),
        (["apples", "2", "--native", "64x64"], "--native goes with"),
        (["apples", "2", "--output", "/dev/null/x"], "cannot write /dev/null/x"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(t2i, tmp_path, more, says):
    complains(t2i(*more), says)
    assert files(tmp_path) == []


def test_classes_of_a_yolo_without_names_are_not_guessed_from_the_order_of_the_command(t2i, yolo_file, tmp_path):
    folder = tmp_path / "nameless"
    folder.mkdir()
    yaml = Path(find_spec("ultralytics").origin).parent / "cfg" / "models" / "11" / "yolo11.yaml"
    (folder / "yolo11n.yaml").write_text(yaml.read_text().replace("nc: 80", "nc: 2"))
    save_file(load_file(yolo_file), folder / "model.safetensors")
    complains(t2i("balls", 2, "apples", 3, "--counter", folder), "does not know 'balls', only 0, 1")


def test_another_model_needs_a_counter(tiny_folder, capsys):
    with pytest.raises(SystemExit):
        main(["count", "apples", "3", "--model", str(tiny_folder)])
    assert "--counter is needed" in capsys.readouterr().err


def test_the_words_of_the_command():
    assert parse_counts(["bottles", "6", "wine glasses", "2"]) == {"bottles": 6, "wine glasses": 2}
    assert default_template({"apples": 7}) == "a photo of {count} apples"
    assert default_template({"a": 1, "b": 2}) == "a photo of {a} a and {b} b"
    with pytest.raises(InputError):
        parse_counts(["apples", "-3"])


def test_the_line_on_yield():
    rows = [{"exact": exact, "compute": {"seconds": 30.0}} for exact in (True, False, True)]
    assert yield_line(rows, 2) == "2 of 2 exact, yield 67 %, 45 s an exact image"
    assert yield_line(rows, 3) == "2 of 3 exact, yield 67 %, 45 s an exact image, about 45 s left"
    assert yield_line(rows, 10) == "2 of 10 exact, yield 67 %, 45 s an exact image, about 6 min left"


def test_the_methods_are_the_librarys():
    assert options.METHODS == METHODS
