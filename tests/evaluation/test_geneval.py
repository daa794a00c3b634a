"""GenEval's clauses (Ghosh et al. 2023) in and out: the same verdict per image on the same detections."""

import json
import random

import pytest
import torch
from PIL import Image
from support import tiny_detectors
from support.geneval import COCO, counting_prompts
from support.shell import complains, run_shell

from t2i_tools.detectors.names import spelling
from t2i_tools.evaluation.image_folders import read_geneval_prompts, read_images, write_geneval
from t2i_tools.evaluation.runs.items import Item
from t2i_tools.evaluation.runs.stages import _counts

CLASSES = ("cat", "couch", "keyboard")


def right_by_geneval(objects, metadata):
    """The published rule: every class of "include" at least so many times, and none of "exclude" that often."""
    names = [one["label"] for one in objects]
    enough = all(names.count(one["class"]) >= one["count"] for one in metadata.get("include", []))
    return enough and not any(names.count(one["class"]) >= one["count"] for one in metadata.get("exclude", []))


def drawn(rng, most):
    """Fewer than so many objects of any classes."""
    return [{"label": rng.choice(CLASSES), "score": 0.9, "box": [0, 0, 1, 1]} for _ in range(rng.randrange(most))]


@pytest.fixture
def layout(tmp_path):
    """layout(metadata, ...) -> a folder in GenEval's layout with an image each."""

    def write(*metadata):
        for number, about in enumerate(metadata):
            place = tmp_path / "geneval" / f"{number:05}"
            (place / "samples").mkdir(parents=True)
            (place / "metadata.jsonl").write_text(json.dumps(about))
            Image.new("RGB", (8, 8)).save(place / "samples" / "00000.png")
        return tmp_path / "geneval"

    return write


def clauses(count, exact):
    about = {"tag": "counting" if exact else "single_object", "prompt": f"{count} cats, {exact}"}
    about["include"] = [{"class": "cat", "count": count}]
    return about | ({"exclude": [{"class": "cat", "count": count + 1}]} if exact else {})


def test_the_verdict_is_geneval_s(layout):
    metadata = [clauses(count, exact) for count in (1, 2, 3) for exact in (True, False)]
    rng, items = random.Random(0), read_images(layout(*metadata))
    verdicts = set()
    for item, about in zip(items, metadata, strict=True):
        for _ in range(60):
            objects = [
                {"label": rng.choice(CLASSES), "score": 0.9, "box": [0, 0, 1, 1]} for _ in range(rng.randrange(9))
            ]
            assert _counts(item, objects)["exact"] == right_by_geneval(objects, about)
            verdicts.add((about["prompt"], right_by_geneval(objects, about)))
    assert len(verdicts) == 12  # each prompt was right and wrong


def test_what_is_written_is_judged_alike_by_geneval(tmp_path):
    """Of a hundred images with known objects: ours, and GenEval's rule over the folder that is written."""
    rng, rows = random.Random(1), []
    (tmp_path / "images").mkdir()
    for index in range(100):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / "images" / f"{index}.png")
        objects = drawn(rng, 7)
        label, count, at_least = rng.choice(CLASSES), rng.randrange(1, 4), rng.random() < 0.3
        item = Item(f"{index}: {count} {label}", label=label, count=count, at_least=at_least)
        row = {"status": "ok", "method": "plain", "prompt": item.prompt, "label": label, "count": count}
        row |= {"file": f"images/{index}.png", "objects": objects, **_counts(item, objects)}
        rows.append(row | ({"at_least": True} if at_least else {}))
    assert write_geneval(rows, tmp_path, tmp_path / "geneval") == 100
    folders = sorted((tmp_path / "geneval").iterdir())
    metadata = [json.loads((folder / "metadata.jsonl").read_text()) for folder in folders]
    assert [about["prompt"] for about in metadata] == [row["prompt"] for row in rows]
    theirs = [right_by_geneval(row["objects"], about) for row, about in zip(rows, metadata, strict=True)]
    assert theirs == [row["exact"] for row in rows]
    assert 10 < sum(theirs) < 90
    again = read_images(tmp_path / "geneval")
    assert [(i.label, i.count, i.at_least) for i in again] == [
        (row["label"], row["count"], row.get("at_least", False)) for row in rows
    ]


@pytest.mark.parametrize(
    "include",
    [
        [{"class": "cat", "count": 1}, {"class": "couch", "count": 1}],
        [{"class": "cat", "count": 1, "color": "red"}],
        [{"class": "couch", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]}],
    ],
)
def test_what_is_not_judged_is_said(layout, include, caplog):
    asked = [{"tag": "colors", "prompt": f"x {number}", "include": include} for number in range(3)]
    items = read_images(layout(*asked, clauses(2, True)))
    assert [(item.label, item.count) for item in items] == [(None, None)] * 3 + [("cat", 2)]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "3 of 4 prompts ask for several classes, a color or a position; their images are not judged" in line


def coco_judge(folder, names):
    """A tiny random YOLOS that knows these names, and sees several of them in any image."""
    torch.manual_seed(0)
    labels = dict(enumerate(names))
    model, processor = tiny_detectors.yolos(labels)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def rows_of(folder):
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_the_80_counting_prompts_are_judged_with_coco_s_names(layout, tmp_path, capsys):
    """In two runs, the second of which goes on; what the judge sees of each class counts under GenEval's name."""
    folder = layout(*counting_prompts())
    judge = coco_judge(tmp_path / "judge", COCO)
    options = ("counts", "--images", folder, "--judge", judge, "--threshold", 0.0, "--device", "cpu")
    options = (*options, "--output", tmp_path / "out", "--clip", "none", "--threads", 1)
    assert run_shell(capsys, "evaluate", *options, "--stop-after", 40)[0] == 0
    assert [row["status"] for row in rows_of(tmp_path / "out")].count("ok") == 40
    assert run_shell(capsys, "evaluate", *options)[0] == 0
    rows = rows_of(tmp_path / "out")
    assert [(row["status"], row["prompt"]) for row in rows] == [("ok", one["prompt"]) for one in counting_prompts()]
    for row in rows:
        assert row["found"] + row["others"] == len(row["objects"]) > 0
        assert row["found"] == sum(bool(spelling(one["label"]) & spelling(row["label"])) for one in row["objects"])
    assert {row["label"] for row in rows if row["found"]}  # something that was asked for was seen


def test_classes_that_are_missing_are_error_rows_and_listed_at_once(layout, tmp_path, capsys, caplog):
    folder = layout(*counting_prompts())
    lost = ("keyboard", "remote", "zebra")
    judge = coco_judge(tmp_path / "judge", [name for name in COCO if name not in lost])
    options = ("counts", "--images", folder, "--judge", judge, "--threshold", 0.0, "--device", "cpu")
    options = (*options, "--output", tmp_path / "out", "--clip", "none", "--threads", 1)
    code, _, err = run_shell(capsys, "evaluate", *options)
    rows = rows_of(tmp_path / "out")
    assert (code, "5 of 80 items failed" in err) == (1, True)
    (line,) = [one.getMessage() for one in caplog.records if "does not know" in one.getMessage()]
    assert "does not know 'computer keyboard', 'tv remote', 'zebra'" in line
    errors = [row["label"] for row in rows if row["status"] == "error"]
    assert sorted(errors) == ["computer keyboard"] * 2 + ["tv remote"] + ["zebra"] * 2
    assert [row["status"] for row in rows].count("ok") == 75


def test_its_own_list_of_prompts_is_read(tmp_path, tiny_folder, judge_file, capsys, caplog):
    about = {"tag": "color_attr", "prompt": "a red cat", "include": [{"class": "cat", "count": 1, "color": "red"}]}
    lines = [clauses(2, True), clauses(1, False), about]
    file = tmp_path / "evaluation_metadata.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_geneval_prompts(file)[1] == {"prompt": "1 cats, False", "label": "cat", "count": 1, "at_least": True}
    assert "1 of 3 prompts ask for several classes" in caplog.text
    run = ("evaluate", "counts", "--model", tiny_folder, "--judge", judge_file, "--prompts", file, "--device", "cpu")
    run = (*run, "--steps", 1, "--sizes", "16x16", "--clip", "none", "--threads", 1, "--output", tmp_path / "out")
    assert run_shell(capsys, *run)[0] == 0
    asked = [(row["status"], row["prompt"], row.get("label"), row.get("count")) for row in rows_of(tmp_path / "out")]
    assert asked == [
        ("ok", "2 cats, True", "cat", 2),
        ("ok", "1 cats, False", "cat", 1),
        ("ok", "a red cat", None, None),
    ]
    file.write_text('{"prompt": "x", "include": [{"class": 5, "count": 1}]}\n')
    complains(run_shell(capsys, *run), "row 1 is not in GenEval's format: it needs")
