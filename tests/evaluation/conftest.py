"""A small evaluation: the tiny pipeline, and an untrained judge that finds something everywhere."""

import pytest
from support.heatmaps import CLASSES, save_heatmap

from t2i_tools.detectors.heatmap import HeatmapCounter
from t2i_tools.evaluation.runs.fingerprint import detector_fingerprint, pipeline_fingerprint
from t2i_tools.evaluation.runs.items import make_items
from t2i_tools.evaluation.runs.manifest import Manifest, Settings, settle
from t2i_tools.evaluation.runs.stages import Openers
from t2i_tools.workflows.detectors import openers_of
from t2i_tools.workflows.open_model import ModelOptions


@pytest.fixture(scope="session")
def judge_file(tmp_path_factory):
    return save_heatmap(tmp_path_factory.mktemp("judge") / "model.safetensors")


@pytest.fixture(scope="session")
def tiny_models(tiny_pipeline, judge_file):
    """The models of this process, opened once."""
    judge = HeatmapCounter.load(judge_file)
    return Openers(pipeline=lambda device: tiny_pipeline, judge=lambda device: judge)


@pytest.fixture(scope="session")
def spawned_models(tiny_folder, judge_file):
    """The same models, for other processes to open."""
    return openers_of(ModelOptions(model=str(tiny_folder), device="cpu"), str(judge_file), None, (), None)


@pytest.fixture(scope="session")
def make_manifest(tiny_models):
    """make_manifest(rows, batch=2, methods=...) -> the manifest of rows of prompts, 16x16 pixels, one step."""
    model = {"name": "tiny", "fingerprint": pipeline_fingerprint(tiny_models.pipeline(None))}
    judge = {"name": "untrained", "fingerprint": detector_fingerprint(tiny_models.judge(None))}

    def make(rows, batch=2, methods=("plain",), **about):
        items = make_items([{"steps": 1, "guidance": 2.0, **row} for row in rows], methods, ((16, 16),))
        return Manifest(items, Settings(batch=batch), model=model, judge=judge, about=about)

    return make


@pytest.fixture
def start(make_manifest, tmp_path):
    """start(rows) -> a new folder with their manifest."""

    def settled(rows, name="out", **options):
        settle(tmp_path / name, make_manifest(rows, **options))
        return tmp_path / name

    return settled


@pytest.fixture(scope="session")
def rows_of():
    """rows_of(n) -> n prompts of apples and cats by turns."""

    def rows(number):
        return [
            {"prompt": f"{1 + i % 3} {CLASSES[i % 2]}s in the car", "label": CLASSES[i % 2], "count": 1 + i % 3}
            for i in range(number)
        ]

    return rows


@pytest.fixture(scope="session")
def tree():
    """tree(folder) -> path: bytes of all in which two runs must agree."""

    def files(folder):
        kept = [path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", "timings.jsonl")]
        return {str(path.relative_to(folder)): path.read_bytes() for path in kept}

    return files
