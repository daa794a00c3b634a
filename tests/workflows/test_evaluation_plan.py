"""What is said of an evaluation before it begins."""

import logging

import pytest
from support import pipezoo

from t2i_tools.bundled import load_bundled_judge
from t2i_tools.evaluation.runs.items import make_items
from t2i_tools.evaluation.runs.manifest import Settings
from t2i_tools.evaluation.runs.stages import Openers
from t2i_tools.workflows.evaluation_plan import plan
from t2i_tools.workflows.open_model import ModelOptions


@pytest.mark.slow
@pytest.mark.parametrize(("method", "lines"), [("entropy", 1), ("plain", 0)])
def test_a_pipeline_that_scales_by_itself(method, lines, caplog):
    pipe = pipezoo.build("lumina")
    items = make_items([{"prompt": "two cats", "label": "cat", "count": 2}], [method], [(96, 96)])
    openers = Openers(judge=lambda _: load_bundled_judge(), pipeline=lambda _: pipe)
    with caplog.at_level(logging.WARNING):
        plan(items, Settings(), openers, ModelOptions("lumina"), ("bundled_judge", None), (1, None), {})
    assert caplog.text.count("LuminaPipeline has its own scaling of attention by size") == lines
