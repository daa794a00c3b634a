import json
from dataclasses import replace

import pytest
import torch

from t2i_tools.errors import InputError
from t2i_tools.evaluation.rows_io import read_log
from t2i_tools.evaluation.runs.generators import GENERATORS
from t2i_tools.evaluation.runs.manifest import Manifest, settle
from t2i_tools.evaluation.runs.merging import merge
from t2i_tools.evaluation.runs.runner import chosen_batches, forget_errors, run_shard
from t2i_tools.evaluation.runs.store import STAGES, Store
from t2i_tools.models.anatomy import align
from t2i_tools.models.loading import open_pipeline


class Killed(BaseException):
    """Ends a run where it is, as Ctrl-C does."""


def run(folder, openers, **options):
    run_shard(folder, openers, **options)
    return Store(folder).write_merged()


@pytest.fixture
def whole(start, tiny_models, rows_of, tree):
    """The tree of an unbroken run of seven prompts."""
    folder = start(rows_of(7), "whole")
    rows = run(folder, tiny_models)
    assert [row["status"] for row in rows] == ["ok"] * 7
    return tree(folder)


def test_where_weights_lie_makes_no_difference(tiny_pipeline, tiny_folder):
    mapped = open_pipeline(tiny_folder)
    mapped.set_progress_bar_config(disable=True)
    weights = [tensor for part in (mapped.unet, mapped.vae, mapped.text_encoder) for tensor in part.parameters()]
    assert any(tensor.data_ptr() % 64 for tensor in weights)
    align(mapped)
    assert not any(tensor.data_ptr() % 64 for tensor in weights)
    size = {"height": 16, "width": 16, "num_inference_steps": 1, "output_type": "pt"}
    for seed in range(8):
        ours, theirs = (
            pipe("two cats", generator=torch.Generator().manual_seed(seed), **size).images
            for pipe in (mapped, tiny_pipeline)
        )
        assert torch.equal(ours, theirs)


def test_a_row_tells_everything(start, tiny_models, rows_of):
    folder = start(rows_of(3))
    rows = run(folder, tiny_models)
    assert rows == [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == [0, 1, 2]
    row = rows[1]
    assert (row["label"], row["count"], row["method"], row["width"], row["height"]) == ("cat", 2, "plain", 16, 16)
    assert row["denoiser"] == 2  # one step, with guidance
    assert (folder / row["file"]).stat().st_size > 0
    assert row["found"] + row["others"] == len(row["objects"]) > 0
    assert row["exact"] == (row["found"] == row["count"])
    assert len({row["seed"] for row in rows}) == len({row["key"] for row in rows}) == 3
    assert "seconds" not in (folder / "rows.jsonl").read_text()
    assert {note["stage"] for note in read_log(folder / "timings.jsonl")} == set(STAGES)


def test_stopped_anywhere_it_goes_on_to_the_same_bytes(whole, start, tiny_models, rows_of, tree):
    folder, left = start(rows_of(7)), 0

    def stop(*_):
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    for left in (3, 2, 4, 3):  # noqa: B007
        with pytest.raises(Killed):
            run_shard(folder, tiny_models, on_batch=stop)
    run(folder, tiny_models)
    assert tree(folder) == whole
    notes = [(note["stage"], note["batch"]) for note in read_log(folder / "timings.jsonl")]
    assert len(notes) == len(set(notes)) == 12  # nothing was made twice


def test_stopped_inside_a_batch_and_with_rubbish_left_behind(whole, start, tiny_pipeline, tiny_models, rows_of, tree):
    folder, calls = start(rows_of(7)), 0

    def stop(*_):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Killed

    hook = tiny_pipeline.vae.decoder.register_forward_pre_hook(stop)
    try:
        with pytest.raises(Killed):
            run_shard(folder, tiny_models)
    finally:
        hook.remove()
    store = Store(folder)
    for path in (store.path("generate", 2), store.images(2)[0]):  # what kill -9 leaves in the middle of writing
        path.with_name(f".{path.name}.123.part").write_bytes(b"torn")
    run(folder, tiny_models)
    assert tree(folder) == whole


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_any_number_of_workers_gives_the_same_bytes(whole, start, tiny_models, rows_of, tree, world):
    folder = start(rows_of(7))
    for part in reversed(range(world)):
        run_shard(folder, tiny_models, shard=(part, world))
    Store(folder).write_merged()
    assert tree(folder) == whole


def test_shards_in_folders_of_their_own_are_merged(whole, start, tiny_models, rows_of, tree, tmp_path):
    shards = [start(rows_of(7), f"shard{part}") for part in range(2)]
    for part, folder in enumerate(shards):
        run_shard(folder, tiny_models, shard=(part, 2))
    assert merge(shards[:1], tmp_path / "merged") == 3
    assert merge(shards, tmp_path / "merged") == 0
    Store(tmp_path / "merged").write_merged()
    assert tree(tmp_path / "merged") == whole
    with pytest.raises(InputError, match="from other prompts"):
        merge([start(rows_of(3), "foreign")], tmp_path / "merged")


def test_limit_takes_whole_batches_of_the_first_items(start, tiny_models, rows_of):
    folder = start(rows_of(7))
    store = Store(folder)
    assert chosen_batches(store, limit=3) == [0, 1]
    assert chosen_batches(store, (1, 2), limit=5) == [1]
    rows = run(folder, tiny_models, limit=3)
    assert [row["status"] for row in rows] == ["ok"] * 4 + ["missing"] * 3


def test_a_poisoned_prompt_harms_no_other(whole, start, tiny_models, rows_of, tree):
    rows = rows_of(7)
    rows[2] = {**rows[2], "prompt": "\ud800 no text"}
    folder = start(rows)
    made = run(folder, tiny_models)
    assert [row["status"] for row in made] == ["ok", "ok", "error", "ok", "ok", "ok", "ok"]
    assert made[2]["stage"] == "generate"
    assert "not UTF-8" in made[2]["error"]
    ours = tree(folder)
    images = [row["file"] for row in made if row["status"] == "ok"]
    assert {file: ours[file] for file in images} == {file: whole[file] for file in images}
    clean = [json.loads(line) for line in whole["rows.jsonl"].splitlines()]
    assert [row for row in made if row["index"] != 2] == [row for row in clean if row["index"] != 2]


def test_a_prompt_that_breaks_the_model_is_found_and_tried_again(
    whole, start, tiny_pipeline, tiny_models, rows_of, tree
):
    """A text encoder that cannot stand one word: the batch with it is tried item by item between fillers."""
    rows, tokenizer = rows_of(7), tiny_pipeline.tokenizer
    (word,) = set(tokenizer("fish")["input_ids"]) - set(tokenizer("")["input_ids"])
    rows[3] = {**rows[3], "prompt": "a fish"}

    def refuse(module, arguments):
        if (arguments[0] == word).any():
            raise RuntimeError("this encoder hates fish\nsecond line")

    hook = tiny_pipeline.text_encoder.register_forward_pre_hook(refuse)
    folder = start(rows)
    try:
        made = run(folder, tiny_models)
    finally:
        hook.remove()
    assert [row["index"] for row in made if row["status"] == "error"] == [3]
    assert made[3]["error"] == "RuntimeError: this encoder hates fish"
    ours = tree(folder)
    assert all(ours[row["file"]] == whole[row["file"]] for row in made if row["status"] == "ok")
    assert forget_errors(folder) == 1
    again = run(folder, tiny_models)
    assert [row["status"] for row in again] == ["ok"] * 7
    assert forget_errors(folder) == 0


@pytest.mark.slow
def test_one_poisoned_prompt_in_a_hundred(start, tiny_models, rows_of):
    rows = [{**row, "prompt": f"{row['prompt']}, {index}"} for index, row in enumerate(rows_of(100))]
    clean = run(start(rows, "clean", batch=8), tiny_models)
    rows[37] = {**rows[37], "prompt": "\ud800"}
    folder = start(rows, batch=8)
    made = run(folder, tiny_models)
    assert [row["index"] for row in made if row["status"] != "ok"] == [37]
    for row, other in zip(made, clean, strict=True):
        if row["index"] != 37:
            assert row == other
            assert (folder / row["file"]).read_bytes() == (folder.parent / "clean" / row["file"]).read_bytes()


def test_methods_start_from_the_same_noise_and_differ(start, tiny_models, rows_of):
    folder = start([row | {"steps": 2} for row in rows_of(2)], methods=GENERATORS)  # a second pass takes half of them
    rows = run(folder, tiny_models)
    assert [row["method"] for row in rows] == [name for name in GENERATORS for _ in range(2)]
    plain, scaled = rows[:2], rows[2:4]
    assert [row["seed"] for row in plain] == [row["seed"] for row in scaled]
    images = [(folder / row["file"]).read_bytes() for row in rows]
    assert len(set(images)) == len(images)
    assert not tiny_models.pipeline(None).unet._forward_pre_hooks  # nothing stays behind


def test_a_method_of_another_version_is_refused_in_one_line(start, tiny_models, rows_of, monkeypatch):
    folder = start(rows_of(1), methods=["plain", "two_pass"])
    monkeypatch.delitem(GENERATORS, "two_pass")
    with pytest.raises(InputError, match="begun with a method that this version does not have: two_pass"):
        run_shard(folder, tiny_models)
    assert not list((folder / "generate").glob("*.jsonl"))


def test_a_batch_without_memory_is_a_batch_of_errors(start, tiny_pipeline, tiny_models, rows_of):
    tries = []

    def fill(*_):
        tries.append(1)
        torch.empty(2**62, dtype=torch.uint8)

    hook = tiny_pipeline.unet.register_forward_pre_hook(fill)
    try:
        rows = run(start(rows_of(3)), tiny_models)
    finally:
        hook.remove()
    assert all(row["error"].startswith("OutOfMemoryError: not enough memory") for row in rows)
    assert len(tries) == 2  # once per batch: its items are not tried one by one, which would fail as well


def test_a_batch_that_another_process_has_is_left_to_it(start, tiny_models, rows_of, tmp_path):
    import subprocess
    import sys

    folder = start(rows_of(4))
    claim = (
        "import sys; from t2i_tools.evaluation.runs.store import Store; store = Store(sys.argv[1])\n"
        "with store.claim('generate', 1) as mine: print(mine, flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", claim, folder], **pipes) as other:
        assert other.stdout.readline() == "True\n"
        rows = run(folder, tiny_models)
        other.kill()
    assert [row["status"] for row in rows] == ["ok", "ok", "missing", "missing"]
    assert [row["status"] for row in run(folder, tiny_models)] == ["ok"] * 4


def test_another_model_or_version_is_refused_in_one_line(start, make_manifest, tiny_models, rows_of, tmp_path):
    rows, folder = rows_of(3), start(rows_of(3))
    ours = make_manifest(rows)
    settle(folder, ours)
    foreign = {
        "another model": replace(ours, model={"name": "tiny", "fingerprint": "0" * 32}),
        "other versions .*torch": replace(ours, versions={**ours.versions, "torch": "1.0"}),
        "another judge": replace(ours, judge={"name": "other", "fingerprint": "0" * 32}),
        "other settings .*batch 2, here 3": make_manifest(rows, batch=3),
        "other prompts": make_manifest(rows[:2]),
        "another benchmark": make_manifest(rows, split="test"),
    }
    for says, manifest in foreign.items():
        with pytest.raises(InputError, match=says) as caught:
            settle(folder, manifest)
        assert "\n" not in str(caught.value)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    with pytest.raises(InputError, match="other files"):
        settle(tmp_path / "full", ours)
    with pytest.raises(InputError, match="not the folder of an evaluation"):
        run_shard(tmp_path / "full", tiny_models)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="it is damaged or not a manifest"):
        Store(folder)


def test_weights_that_changed_since_are_refused(start, make_manifest, tiny_models, rows_of, tmp_path):
    for part in ("model", "judge"):
        folder = tmp_path / part
        settle(folder, replace(make_manifest(rows_of(2)), **{part: {"name": "old", "fingerprint": "0" * 32}}))
        with pytest.raises(InputError, match=f"another {part}"):
            run_shard(folder, tiny_models)
    manifest = make_manifest(rows_of(2))
    settle(tmp_path / "half", replace(manifest, settings=replace(manifest.settings, dtype="bfloat16")))
    with pytest.raises(InputError, match="dtype bfloat16"):
        run_shard(tmp_path / "half", tiny_models)


def test_a_manifest_reads_as_it_was_written(start, make_manifest, rows_of):
    manifest = make_manifest(rows_of(3), split="dev")
    read = Store(start(rows_of(3), split="dev")).manifest
    assert isinstance(read, Manifest)
    assert read.items == manifest.items
    assert (read.keys, read.batches, read.digest()) == (manifest.keys, manifest.batches, manifest.digest())
