"""GenEval's clauses (Ghosh et al. 2023) in and out: the same verdict per image on the same detections."""

import json
import random

import pytest
from PIL import Image

from t2i_tools.evaluation.image_folders import read_images, write_geneval
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
    (item,) = read_images(layout({"tag": "colors", "prompt": "x", "include": include}))
    assert (item.label, item.count) == (None, None)
    assert "not judged" in caplog.text
