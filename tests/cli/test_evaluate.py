import csv
import json
from pathlib import Path

import pytest
from PIL import Image
from support.heatmaps import save_heatmap
from support.shell import complains, run_shell

from t2i_tools.errors import InputError
from t2i_tools.evaluation.reports.protocol import test_runs as runs_of
from t2i_tools.images.metadata import read_settings
from t2i_tools.workflows.evaluation_plan import bundled_benchmark, parse_shard

PROMPTS = "prompt,class,count\ntwo apples,apple,2\na cat,cat,1\nthree cats,cat,3\nno class,,\n"


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return save_heatmap(tmp_path_factory.mktemp("judge") / "model.safetensors")


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    return save_heatmap(tmp_path_factory.mktemp("counter") / "model.safetensors", seed=2)


@pytest.fixture
def t2i(tiny_folder, judge, tmp_path, monkeypatch, capsys):
    """Run `t2i evaluate VERB` in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.csv").write_text(PROMPTS)

    def run(verb, *arguments):
        own = ["--model", str(tiny_folder), "--judge", str(judge), "--threads", "1", "--device", "cpu"]
        return run_shell(capsys, "evaluate", verb, *(own if verb == "counts" else []), *arguments)

    return run


@pytest.fixture
def small():
    """Options of a small evaluation."""
    return ("--prompts", "p.csv", "--steps", 1, "--sizes", "16x16", "--batch", 2, "--output", "out")


def test_from_prompts_to_report_and_on_again(t2i, small, tmp_path):
    code, out, err = t2i("counts", *small)
    assert (code, err) == (0, "")
    assert "exact" in out
    assert out.endswith("out/report.html\n")
    folder = tmp_path / "out"
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert [(row["status"], row.get("count")) for row in rows] == [("ok", 2), ("ok", 1), ("ok", 3), ("ok", None)]
    settings = read_settings(folder / rows[0]["file"])
    assert (settings["prompt"], settings["seed"], settings["key"]) == ("two apples", rows[0]["seed"], rows[0]["key"])
    with open(folder / "report.csv") as file:
        assert [line["prompt"] for line in csv.DictReader(file)] == [row["prompt"] for row in rows]
    page = (folder / "report.html").read_text()
    assert "data:image/webp;base64," in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")  # nothing is fetched
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    code, out, _ = t2i("counts", *small, "--json")
    (group,) = json.loads(out)["groups"]
    assert (code, group["name"], group["ok"], group["figures"]["exact"]["n"]) == (0, "plain", 4, 3)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == before
    complains(t2i("counts", *small, "--steps", 2), "from other prompts")
    complains(t2i("counts", *small, "--scheduler", "euler"), "another model")
    complains(t2i("counts", *small, "--batch", 3), r"other settings \(there batch 2, here 3\)")


def test_classes_that_the_judge_does_not_know(t2i, tmp_path, caplog):
    """Their images become error rows, and the others are judged; all such classes are said at once, beforehand."""
    folder = tmp_path / "made"
    folder.mkdir()
    for name in "abc":
        Image.new("RGB", (16, 16), "red").save(folder / f"{name}.png")
    (folder / "metadata.csv").write_text("file_name,class,count\na.png,cat,1\nb.png,goblin,1\nc.png,unicorn,2\n")
    code, out, err = t2i("counts", "--images", folder, "--output", "out")
    assert (code, "2 of 3 items failed" in err) == (1, True)
    assert "does not know 'goblin', 'unicorn'" in caplog.text
    assert "Benchmark made," in out
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["ok", "error", "error"]
    assert "does not know 'unicorn'" in rows[2]["error"]
    caplog.clear()
    (tmp_path / "odd.csv").write_text("prompt,class,count\na,cat,1\nb,goblin,1\nc,unicorn,2\n")
    odd = ("--prompts", "odd.csv", "--steps", 1, "--sizes", "16x16", "--batch", 2, "--output", "odd")
    code, out, err = t2i("counts", *odd)
    assert (code, "2 of 3 items failed" in err) == (1, True)
    (line,) = [one.getMessage() for one in caplog.records if "does not know" in one.getMessage()]
    assert "does not know 'goblin', 'unicorn': these images are not judged" in line
    rows = [json.loads(line) for line in (tmp_path / "odd" / "rows.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["ok", "error", "error"]
    (tmp_path / "none.csv").write_text("prompt,class,count\nb,goblin,1\nc,unicorn,2\n")
    complains(t2i("counts", "--prompts", "none.csv", "--output", "none"), "does not know 'goblin', 'unicorn', only")


def test_shards_and_limit(t2i, small, tmp_path):
    assert t2i("counts", *small, "--stop-after", 1)[0] == 0
    whole = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert [row["status"] for row in whole] == ["ok", "ok", "missing", "missing"]
    code, _, err = t2i("counts", *small, "--shard", "2/2")
    assert (code, "t2i evaluate merge" in err) == (0, True)
    assert t2i("counts", *small[:-1], "first", "--shard", "1/2", "--quiet")[0] == 0
    code, _, err = t2i("merge", "first", "--output", "all")
    assert (code, err.count("\n"), "in none of these folders: 2;" in err) == (0, 1, True)
    assert t2i("merge", "first", "out", "--output", "all")[::2] == (0, "")
    assert '"missing"' not in (tmp_path / "all" / "rows.jsonl").read_text()
    notes = (tmp_path / "all" / "timings.jsonl").read_text()
    assert t2i("merge", "first", "out", "--output", "all")[0] == 0
    assert (tmp_path / "all" / "timings.jsonl").read_text() == notes
    assert t2i("report", "all")[0] == 0


def test_a_failed_item_is_in_the_exit_code(t2i, small, tmp_path):
    (tmp_path / "p.jsonl").write_text(
        '{"prompt": "\\ud800", "class": "cat", "count": 1}\n{"prompt": "cat", "class": "cat", "count": 1}\n'
    )
    code, _, err = t2i("counts", *small, "--prompts", "p.jsonl", "--quiet")
    assert code == 1
    assert err.startswith("t2i: 1 of 2 items failed (InputError: the prompt is not valid text")
    assert t2i("counts", *small, "--prompts", "p.jsonl", "--retry-errors")[0] == 1
    assert "InputError" in (tmp_path / "out" / "report.html").read_text()


def test_geneval_out_and_in_again(t2i, small, tmp_path):
    assert t2i("counts", *small, "--geneval", "geneval")[0] == 0
    assert sorted(path.name for path in (tmp_path / "geneval").iterdir()) == ["00000", "00001", "00002"]
    metadata = json.loads((tmp_path / "geneval" / "00002" / "metadata.jsonl").read_text())
    clauses = {"include": [{"class": "cat", "count": 3}], "exclude": [{"class": "cat", "count": 4}]}
    assert metadata == {"tag": "counting", **clauses, "prompt": "three cats"}
    assert t2i("counts", "--images", "geneval", "--output", "judged")[0] == 0
    rows, judged = (
        [json.loads(line) for line in (tmp_path / name / "rows.jsonl").read_text().splitlines()]
        for name in ("out", "judged")
    )
    assert [row["found"] for row in judged] == [row["found"] for row in rows[:3]]
    assert t2i("counts", "--images", "out", "--output", "again")[0] == 0
    (tmp_path / "geneval" / "00000" / "samples" / "00000.png").write_bytes(b"no image")
    assert t2i("counts", "--images", "geneval", "--output", "broken")[0] == 1
    complains(t2i("counts", "--images", "p.csv", "--output", "bad"), "not a folder")


def test_a_folder_of_pictures(t2i, tmp_path):
    """What is to be counted says its metadata.csv, the options, or both."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in (("b.png", "red"), ("a.jpg", "blue")):
        Image.new("RGB", (32, 32), colour).save(folder / name)
    complains(t2i("counts", "--images", "pictures", "--output", "out"), "write metadata.csv")
    complains(t2i("counts", "--prompts", "p.csv", "--label", "cat", "--output", "out"), "go with --images")
    assert not (tmp_path / "out").exists()

    def judged(*options):
        output = f"out{len(list(tmp_path.iterdir()))}"
        code, _, err = t2i("counts", "--images", "pictures", "--output", output, *options)
        assert (code, err) == (0, "")
        return [json.loads(line) for line in (tmp_path / output / "rows.jsonl").read_text().splitlines()]

    told = [(Path(row["file"]).name, row["label"], row["count"]) for row in judged("--label", "cat", "--count", 2)]
    assert told == [("a.jpg", "cat", 2), ("b.png", "cat", 2)]
    (folder / "metadata.csv").write_text("file_name,class,count,prompt\nb.png,apple,1,an apple\na.jpg,,3,\n")
    rows = judged("--label", "cat")
    told = [(Path(row["file"]).name, row["label"], row["count"], row["prompt"]) for row in rows]
    assert told == [("b.png", "apple", 1, "an apple"), ("a.jpg", "cat", 3, "3 cat")]
    (folder / "metadata.csv").write_text("file_name,class\na.jpg,cat\nb.png,apple\n")
    assert [(row["label"], "found" in row, "exact" in row) for row in judged()] == [
        ("cat", True, False),
        ("apple", True, False),
    ]
    (folder / "metadata.csv").write_text("file_name,class,count\nc.png,apple,1\n")
    complains(t2i("counts", "--images", "pictures", "--output", "bad"), "c.png")


def test_the_test_split_needs_a_protocol_and_is_logged(t2i, tmp_path):
    options = ("--output", "out", "--steps", 1, "--sizes", "16x16", "--quiet")
    complains(t2i("counts", *options, "--split", "test"), "needs --protocol")
    complains(t2i("counts", *options, "--split", "test", "--prompts", "p.csv"), "needs --protocol")
    (tmp_path / "claim.json").write_text('{"primary": "mae", "split": "test", "unit": "class", "_why": "a test"}')
    complains(t2i("counts", *options, "--protocol", "claim.json"), "add --split test")
    rule = ("--split", "test", "--protocol", "claim.json", "--prompts", "p.csv")
    for _ in range(2):  # a resume is no second run
        assert t2i("counts", *options, *rule)[0] == 0
    assert len(runs_of(tmp_path / "claim.json")) == 1
    assert "test split was run 1 time" in (tmp_path / "out" / "report.md").read_text()
    (tmp_path / "claim.json").write_text('{"baseline": "entropy_scaling"}')
    complains(t2i("counts", *options, "--prompts", "p.csv", "--protocol", "claim.json"), "not among the methods plain")
    (tmp_path / "claim.json").write_text('{"primary": "beauty"}')
    complains(t2i("counts", *options, "--protocol", "claim.json"), "unknown primary 'beauty'")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--shard", "3/2"], "shard '3/2'"),
        (["--engine", "magic"], "unknown engine 'magic'"),
        (["--engine", "accelerate", "--workers", "2"], "leave --workers"),
        (["--methods", "magic"], "unknown method 'magic'"),
        (["--images", "."], "either --prompts or --images"),
        (["--counts", "2"], "go with the built-in benchmark"),
        (["--sizes", ""], "WIDTHxHEIGHT"),
        (["--steps", "5000"], "more than the 1000"),
        (["--judge", "nonsense"], "unknown detector 'nonsense'"),
        (["--clip", "nonsense"], "nonsense"),
        (["--protocol", "absent.json"], "cannot read absent.json"),
    ],
)
def test_bad_input_is_one_line(t2i, small, tmp_path, arguments, says):
    complains(t2i("counts", *small, *arguments), says)
    assert not (tmp_path / "out").exists()


def test_processes_of_a_launcher_that_would_each_do_all_the_work_are_refused(t2i, small, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    complains(t2i("counts", *small), "started this command 4 times: add --engine accelerate")
    assert not (tmp_path / "out").exists()
    code, _, err = t2i("counts", *small, "--shard", "1/2")
    assert (code, "launcher" in err) == (0, False), err


def test_a_class_that_the_judge_does_not_know(t2i, small, tmp_path):
    (tmp_path / "p.csv").write_text("prompt,class,count\ntwo spoons,spoon,2\n")
    complains(t2i("counts", *small), "apple, cat")
    assert not (tmp_path / "out").exists()


def test_searches_beside_plain_images(t2i, small, counter, judge, tmp_path, caplog):
    """A row that asks for no count cannot be searched for, which is said beforehand."""
    asked = (*small, "--methods", "plain,best-of,bisection+best_of", "--counter", counter)
    code, out, err = t2i("counts", *asked, "--budget", 2)
    assert (code, "3 of 12 items failed" in err) == (1, True)
    assert "3 of 8 searches cannot be made: best_of searches for a count" in caplog.text
    assert f"Searches were steered by {counter.stem} (" in out and "at most 2 plain images' worth" in out
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    searched = [row for row in rows if row["method"] != "plain" and row["status"] == "ok"]
    assert len(searched) == 5  # "a cat" does not contain "one"
    assert all({"final_seed", "spent", "stopped"} < row.keys() and row["spent"] <= 2 for row in searched)
    before = {path: path.read_bytes() for path in (tmp_path / "out" / "images").iterdir()}
    assert t2i("counts", *asked, "--budget", 2)[0] == 1
    assert {path: path.read_bytes() for path in (tmp_path / "out" / "images").iterdir()} == before
    complains(t2i("counts", *asked, "--budget", 3), r"another counter or budget \(there budget 2.0, here 3.0\): give")
    complains(t2i("counts", *asked[:-1], judge, "--budget", 2), "the judge must not be the detector that steers")
    (tmp_path / "none.csv").write_text("prompt,class,count\nsome apples,apple,2\n")
    words = ("--prompts", "none.csv", "--methods", "bisection+best_of", "--counter", counter, "--output", "none")
    complains(t2i("counts", *words), "'some apples' does not contain 'two': add it, or use best_of")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--counter", "bundled_counter"], "--counter does nothing with --methods plain: it goes with best_of, bis"),
        (["--budget", "3", "--methods", "plain,two_pass"], "--budget does nothing with --methods plain, two_pass: it"),
        (["--methods", "best_of"], "--counter is needed"),
        (["--methods", "best_of", "--counter", "bundled_judge"], "a judge only evaluates"),
        (["--methods", "best_of", "--counter", "nonsense"], "unknown detector 'nonsense'"),
        (["--methods", "best_of", "--budget", "0"], "(greater than or equal to |range x>=)1"),
    ],
)
def test_bad_input_for_searches_is_one_line(t2i, small, tmp_path, arguments, says):
    complains(t2i("counts", *small, *arguments), says)
    assert not (tmp_path / "out").exists()


def test_images_that_are_only_judged_are_not_searched_for(t2i, tmp_path):
    (tmp_path / "made").mkdir()
    complains(t2i("counts", "--images", "made", "--output", "out", "--budget", 3), "are judged as they are")


def test_parse_shard():
    assert parse_shard("2/3") == (1, 3)
    for text in ("0/2", "1", "a/b", "1/0"):
        with pytest.raises(InputError, match="I/N"):
            parse_shard(text)


def test_the_bundled_benchmark_splits_share_no_class_and_no_wording():
    dev, test = bundled_benchmark("dev"), bundled_benchmark("test")
    assert not set(dev.classes) & set(test.classes)
    assert not {scene for scene in dev.scenes if scene} & set(test.scenes)
    assert dev.opening != test.opening
