"""Images and rows that are lost, cut, exchanged or broken: made again or one line, never a wrong figure in silence."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from t2i_tools.bundled import load_bundled_clip
from t2i_tools.errors import InputError
from t2i_tools.evaluation.image_folders import read_images
from t2i_tools.evaluation.runs.fingerprint import weights_fingerprint
from t2i_tools.evaluation.runs.manifest import read_manifest, settle
from t2i_tools.evaluation.runs.merging import merge
from t2i_tools.evaluation.runs.runner import run_shard
from t2i_tools.evaluation.runs.stages import open_stage
from t2i_tools.evaluation.runs.store import Store


def run(folder, openers):
    run_shard(folder, openers)
    return Store(folder).write_merged()


@pytest.fixture
def done(start, tiny_models, rows_of):
    """The folder of a finished evaluation of five prompts."""
    folder = start(rows_of(5))
    run(folder, tiny_models)
    return folder


def delete(path, other):
    path.unlink()


def cut(path, other):
    path.write_bytes(path.read_bytes()[:-40])


def exchange(path, other):
    path.write_bytes(other.read_bytes())


def repaint(path, other):
    """Another image of the same name and settings."""
    Image.new("RGB", (16, 16), "red").save(path)


@pytest.mark.parametrize("harm", [delete, cut, exchange, repaint])
def test_an_image_that_is_lost_is_made_again(done, tiny_models, tree, harm, caplog):
    before, images = tree(done), sorted((done / "images").iterdir())
    harm(images[2], images[0])
    assert tree(done) != before
    run(done, tiny_models)
    assert tree(done) == before
    assert images[2].name in caplog.text
    assert "batch 1 is made again" in caplog.text


@pytest.mark.parametrize("harm", [delete, cut, exchange, repaint])
def test_what_is_judged_is_the_image_that_was_made(done, tiny_models, harm):
    """Whatever happens to a file between two stages of one run."""
    store, images = Store(done), sorted((done / "images").iterdir())
    harm(images[2], images[0])
    rows = open_stage("detect", store, tiny_models)(1)
    assert [row["status"] for row in rows] == ["error", "ok"]
    assert images[2].name in rows[0]["error"]


def test_the_clip_score_of_an_image_that_cannot_be_read_is_an_error(
    make_manifest, tiny_models, rows_of, tmp_path, tree, caplog
):
    clip = load_bundled_clip()
    openers = replace(tiny_models, clip=lambda device: clip)
    part = {"name": "bundled", "fingerprint": weights_fingerprint(clip.model)}
    settle(tmp_path / "out", replace(make_manifest(rows_of(4)), clip=part))
    whole = run(tmp_path / "out", openers)
    assert all("clip" in row for row in whole)
    store = Store(tmp_path / "out")
    cut(store.images(1)[0], None)
    rows = open_stage("score", store, openers)(1)
    assert [row["status"] for row in rows] == ["error", "ok"]
    assert "clip" not in rows[0]
    assert rows[1]["clip"] == whole[3]["clip"]


def test_an_image_of_nan_is_an_error_row(start, tiny_pipeline, tiny_models, rows_of, tree):
    whole, folder = start(rows_of(4), "whole"), start(rows_of(4))
    run(whole, tiny_models)
    calls = 0

    def spoil(module, arguments, output):
        """The first image of the second batch, alone or with its neighbour."""
        nonlocal calls
        calls += 1
        if calls in (2, 3, 4, 5):
            output[0] = torch.nan
        return output

    hook = tiny_pipeline.vae.decoder.register_forward_hook(spoil)
    try:
        rows = run(folder, tiny_models)
    finally:
        hook.remove()
    assert [row["status"] for row in rows[:2]] == ["ok", "ok"]
    bad = [row for row in rows if row["status"] == "error"]
    assert bad
    assert all("came out as NaN" in row["error"] and "file" not in row for row in bad)
    assert len(list((folder / "images").iterdir())) == 4 - len(bad)


def test_a_shard_with_a_lost_image_is_not_merged(done, tmp_path):
    image = sorted((done / "images").iterdir())[3]
    image.unlink()
    with pytest.raises(InputError, match=image.name):
        merge([done], tmp_path / "merged")


def test_a_score_that_lacks_what_was_found_is_broken(done):
    store = Store(done)
    rows = [json.loads(line) for line in store.path("score", 0).read_text().splitlines()]
    del rows[0]["found"]
    store.path("score", 0).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(InputError, match="is broken: remove it and run again"):
        store.merged()


@pytest.mark.parametrize(
    "content",
    ["5", "[1]", '"text"', "{", "{}", "[" * 100_000, '{"key": "KEY"}', '{"key": "KEY", "status": "ok"}', "null", "\0"],
)
@pytest.mark.parametrize("stage", ["generate", "detect", "score"])
def test_broken_rows_are_one_line(done, tiny_models, stage, content):
    store = Store(done)
    lines = [content.replace("KEY", key) for key in store.keys(0)]
    store.path(stage, 0).write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError) as caught:
        run(done, tiny_models)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "change",
    [
        lambda m: {"format": m["format"]},
        lambda m: {**m, "items": 5},
        lambda m: {**m, "items": [1]},
        lambda m: {**m, "items": [{**m["items"][0], "prompt": "another"}, *m["items"][1:]]},
        lambda m: {**m, "settings": []},
        lambda m: {**m, "settings": {**m["settings"], "threads": "two"}},
        lambda m: {**m, "versions": 3},
        lambda m: {**m, "surprise": 1},
        lambda m: {**m, "format": 99},
    ],
)
def test_a_broken_manifest_is_one_line(done, change):
    file = done / "manifest.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(InputError, match=r"manifest.json|another version") as caught:
        read_manifest(done)
    assert "\n" not in str(caught.value)


def test_a_deeply_nested_manifest_is_one_line(done):
    (done / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="it is damaged or not a manifest"):
        read_manifest(done)


@pytest.mark.parametrize("lacks", ["status", "prompt", "file", "seed", "method"])
def test_rows_of_another_evaluation_that_lack_something(done, lacks):
    rows = [json.loads(line) for line in (done / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        del row[lacks]
    (done / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError) as caught:
        read_images(done)
    assert "\n" not in str(caught.value)


def test_names_of_thousands_of_characters_are_shortened(tmp_path):
    (tmp_path / "metadata.csv").write_text(f"file_name,class,count\n{'long' * 2000}.png,cat,1\n")
    with pytest.raises(InputError) as caught:
        read_images(tmp_path)
    assert len(str(caught.value)) < 500


def test_geneval_metadata_that_is_nested_deeply(tmp_path):
    (tmp_path / "00000").mkdir()
    (tmp_path / "00000" / "metadata.jsonl").write_text("[" * 100_000)
    with pytest.raises(InputError, match="broken"):
        read_images(tmp_path)
