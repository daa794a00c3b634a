"""Count searches as methods of an evaluation: what a counter steers, another detector judges."""

import copy
import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from support.heatmaps import save_heatmap

from t2i_tools.counting import best_of, optimize_count
from t2i_tools.detectors.heatmap import HeatmapCounter
from t2i_tools.errors import InputError
from t2i_tools.evaluation.image_folders import read_images
from t2i_tools.evaluation.reports.report import write_report
from t2i_tools.evaluation.runs.engines import run_processes
from t2i_tools.evaluation.runs.fingerprint import detector_fingerprint
from t2i_tools.evaluation.runs.items import SEARCHES, Item, batches
from t2i_tools.evaluation.runs.manifest import read_manifest, settle
from t2i_tools.evaluation.runs.merging import merge
from t2i_tools.evaluation.runs.runner import run_shard
from t2i_tools.evaluation.runs.searching import count_template, search_item, search_problem
from t2i_tools.evaluation.runs.store import Store
from t2i_tools.images.metadata import read_settings
from t2i_tools.workflows.detectors import counter_on
from t2i_tools.workflows.open_model import ModelOptions

BUDGET = 3.0
WORDS = [
    {"prompt": "one apple", "label": "apple", "count": 1, "seed": 5},
    {"prompt": "three cats in the car", "label": "cat", "count": 3, "seed": 6},
    {"prompt": "2 apples", "label": "apple", "count": 2, "seed": 7},
]


@pytest.fixture(scope="module")
def counter_file(tmp_path_factory):
    """A counter other than the judge, which sees none to two of a class in what the tiny model draws."""
    return save_heatmap(tmp_path_factory.mktemp("counter") / "model.safetensors", seed=2)


@pytest.fixture(scope="module")
def counter(counter_file):
    return HeatmapCounter.load(counter_file)


@pytest.fixture(scope="module")
def models(tiny_models, counter):
    return replace(tiny_models, counter=lambda device: counter)


@pytest.fixture
def start(make_manifest, counter, tmp_path):
    """start(name) -> a new folder of plain images and searches."""

    def settled(name="out", rows=WORDS, methods=("plain", *SEARCHES), budget=BUDGET, by=counter):
        search = {"name": "counter", "fingerprint": detector_fingerprint(by), "budget": budget}
        settle(tmp_path / name, replace(make_manifest(rows, methods=methods), search=search))
        return tmp_path / name

    return settled


@pytest.fixture(scope="module")
def whole(models, make_manifest, counter, tmp_path_factory):
    """The folder of an unbroken run."""
    folder = tmp_path_factory.mktemp("whole")
    search = {"name": "counter", "fingerprint": detector_fingerprint(counter), "budget": BUDGET}
    settle(folder, replace(make_manifest(WORDS, methods=("plain", *SEARCHES)), search=search))
    run_shard(folder, models)
    Store(folder).write_merged()
    return folder


def test_images_of_a_search_are_judged_as_any_others(whole):
    items = read_images(whole, None, None)
    assert {item.method for item in items} == {"plain", *SEARCHES}
    assert not any(item.is_search for item in items)
    assert len(batches(items, 8)) == 3  # of each method one


def rows_in(folder):
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def pixels(images):
    return [np.asarray(image).tolist() for image in images]


@pytest.mark.parametrize("method", SEARCHES)
def test_a_search_of_an_item_is_the_librarys_own(method, tiny_pipeline, counter):
    item = Item("three cats", 6, method, "cat", 3, size=(16, 16), steps=1, guidance=2.0)
    made = search_item(tiny_pipeline, item, counter, BUDGET)
    options = {"label": "cat", "seeds": (6,), "budget": BUDGET, "size": (16, 16), "steps": 1, "guidance": 2.0}
    if method == "best_of":
        own = best_of(tiny_pipeline, "three cats", 3, counter, **options)
    else:
        own = optimize_count(tiny_pipeline, "{count} cats", 3, counter, method=method, **options).run()
    assert pixels(made.images) == pixels(own.images)
    assert (made.seeds, made.prompt, made.stopped) == (own.seeds, own.prompt, own.stopped)


def test_rows_and_files_say_what_the_search_ended_with(whole, counter):
    rows = rows_in(whole)
    assert [row["status"] for row in rows] == ["ok"] * 9
    searched = [row for row in rows if row["method"] in SEARCHES]
    assert [row["seed"] for row in rows] == [5, 6, 7] * 3  # that each began with, by which they are paired
    assert len({row["final_seed"] == row["seed"] for row in searched}) == 2  # some end on another
    for row in searched:
        settings = read_settings(whole / row["file"])
        assert settings["seed"] == row["final_seed"] == settings["search"]["final_seed"]
        assert (settings["search"]["counter"], settings["search"]["budget"]) == ("counter", BUDGET)
        assert row["denoiser"] == 2 * row["spent"]  # one step, with guidance
        assert 1 <= row["spent"] == row["trials"] <= BUDGET
        assert (row["stopped"] == "exact") == (row["counted"] == row["count"])
    assert not any("spent" in row for row in rows if row["method"] == "plain")


def test_the_plain_images_are_those_of_an_evaluation_without_searches(
    whole, models, make_manifest, tmp_path, tree, tiny_models
):
    """To the byte, and a folder of one from before there were searches goes on."""
    settle(tmp_path / "plain", make_manifest(WORDS))
    assert "search" not in json.loads((tmp_path / "plain" / "manifest.json").read_text())
    run_shard(tmp_path / "plain", tiny_models)
    before = tree(tmp_path / "plain")
    images = {name: content for name, content in before.items() if name.endswith(".png")}
    assert len(images) == 3
    assert images.items() <= tree(whole).items()
    settle(tmp_path / "plain", make_manifest(WORDS))
    run_shard(tmp_path / "plain", tiny_models)
    assert tree(tmp_path / "plain") == before


def test_the_pipeline_is_left_as_it_was(tiny_pipeline, counter):
    item = Item("three cats", 6, "bisection+best_of", "cat", 3, size=(16, 16), steps=1)
    weights = {name: value.clone() for name, value in tiny_pipeline.text_encoder.state_dict().items()}
    words = copy.deepcopy(tiny_pipeline.tokenizer.get_vocab())
    search_item(tiny_pipeline, item, counter, BUDGET)
    assert tiny_pipeline.tokenizer.get_vocab() == words
    assert all(torch.equal(value, weights[name]) for name, value in tiny_pipeline.text_encoder.state_dict().items())
    assert not tiny_pipeline.unet._forward_pre_hooks


class Ending:
    """A counter with which the process ends at its n-th look, in the middle of a search."""

    def __init__(self, counter, looks):
        self.counter, self.left = counter, looks
        self.labels, self.threshold, self.net = counter.labels, counter.threshold, counter.net

    def detect(self, images, label=None):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.counter.detect(images, label)


Ending.__name__ = "HeatmapCounter"  # by which the fingerprint knows it


@pytest.mark.parametrize("looks", [1, 5])
def test_a_run_that_ends_amid_a_search_goes_on_to_the_same_bytes(whole, start, models, counter, tree, looks):
    folder = start()
    with pytest.raises(KeyboardInterrupt):  # no half search is taken for a whole one
        run_shard(folder, replace(models, counter=lambda device: Ending(counter, looks)))
    assert not list(folder.glob("detect/*"))
    run_shard(folder, models)
    Store(folder).write_merged()
    assert tree(folder) == tree(whole)


def test_shards_give_the_bytes_of_one_run(whole, start, models, tree, tmp_path):
    for part in range(2):
        run_shard(start(f"part{part}"), models, shard=(part, 2))
    assert merge([tmp_path / "part0", tmp_path / "part1"], tmp_path / "all") == 0
    Store(tmp_path / "all").write_merged()
    assert tree(tmp_path / "all") == tree(whole)


@pytest.mark.slow
def test_workers_give_the_bytes_of_one_run(whole, start, spawned_models, counter_file, tree):
    folder = start()
    steers = partial(counter_on, str(counter_file), ModelOptions(device="cpu"), ("apple", "cat"))
    run_processes(folder, replace(spawned_models, counter=steers), 2)
    Store(folder).write_merged()
    assert tree(folder) == tree(whole)


def test_another_counter_or_budget_is_another_evaluation(start, models, tiny_models, make_manifest):
    folder = start()
    with pytest.raises(InputError, match=r"another counter or budget \(there budget 3.0, here 4.0\): give another"):
        start(budget=4.0)
    other = tiny_models.judge(None)
    with pytest.raises(InputError, match="another counter or budget \\(there fingerprint "):
        start(by=other)
    with pytest.raises(InputError, match="from other prompts, methods"):
        settle(folder, make_manifest(WORDS))
    with pytest.raises(InputError, match="needs a counter to go on"):
        run_shard(folder, tiny_models)
    with pytest.raises(InputError, match="was made with another counter"):
        run_shard(folder, replace(models, counter=lambda device: other))
    assert read_manifest(folder).search["budget"] == BUDGET


def test_unsearchable_items_become_error_rows(start, models):
    rows = [
        {"prompt": "a landscape"},
        {"prompt": "no apples", "label": "apple", "count": 0},
        {"prompt": "some apples", "label": "apple", "count": 2},
        {"prompt": "two ufos", "label": "ufo", "count": 2},
        WORDS[0],
    ]
    folder = start(rows=rows)
    run_shard(folder, models)
    said = {}
    for row in Store(folder).merged():
        if row["status"] == "error" and row["stage"] == "generate":
            said.setdefault(row["prompt"], []).append(row["error"])
    failed = {prompt: len(errors) for prompt, errors in said.items()}
    assert failed == {"a landscape": 2, "no apples": 2, "some apples": 1, "two ufos": 2}  # best_of reads no number
    assert "give the prompt a class" in said["a landscape"][0]
    assert "a count of 1 or more" in said["no apples"][0]
    assert "'some apples' does not contain 'two': add it, or use best_of" in said["some apples"][0]
    assert "ufo" in said["two ufos"][0]


@pytest.mark.parametrize(
    ("prompt", "count", "template"),
    [
        ("a photo of two cats", 2, "a photo of {count} cats"),
        ("Five cats, five dogs", 5, "{count} cats, five dogs"),
        ("7 cats", 7, "{count} cats"),
        ("twenty-five cats", 5, "twenty-five cats"),
        ("twenty-five cats", 25, "{count} cats"),
        ("a 12-sided dice", 12, "a 12-sided dice"),
        ("sometwo cats", 2, "sometwo cats"),
    ],
)
def test_the_number_is_found_as_a_word_of_its_own(prompt, count, template):
    assert count_template(prompt, count) == template


def test_a_size_that_has_to_be_fitted_is_not_searched_for():
    item = Item("two cats", 1, "best_of", "cat", 2, size=(15, 17), fit="snap")
    assert "works only with fit 'crop', not 'snap'" in search_problem(item)
    assert not search_problem(replace(item, fit="crop"))
    assert "accepts more: remove this prompt" in search_problem(replace(item, fit="crop", at_least=True))


def test_the_report_says_what_steered_and_what_it_cost(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "copy")
    text = write_report(folder, Store(folder).merged())
    assert "Searches were steered by counter (" in text
    assert "not by the judge, with at most 3 plain images' worth" in text
    assert "best_of spent " in text
    head = (folder / "report.csv").read_text().splitlines()[0]
    assert head.endswith("error,final_seed,counted,trials,stopped,spent")
