"""Rows from JSON are what their types say, or are refused by name."""

import json

import pytest

from t2i_tools.errors import InputError
from t2i_tools.evaluation.row_types import typed_rows
from t2i_tools.evaluation.runs.rows import DetectRow
from t2i_tools.evaluation.studies.rows import BriefSearchRow, UseRow

SEARCH = {"key": "cat-7-1", "method": "plain", "label": "cat", "count": 7, "seed": 1, "counted": 7, "judged": 8,
          "curve": [[1.0, 9], [2, 8]], "kept": None, "similarity": 0.9, "same_seed": True, "looks": 0,
          "images": 2}  # fmt: skip


def test_a_row_of_json_is_handed_on_as_it_is():
    rows = json.loads(json.dumps([SEARCH, SEARCH | {"budget": 16, "unet": ""}]))
    assert typed_rows(BriefSearchRow, rows, "searches.jsonl") == rows


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("judged", "8"),
        ("count", True),
        ("kept", "much"),
        ("curve", [[1.0]]),
        ("curve", [[1.0, 7.5]]),
        ("curve", 3),
        ("same_seed", 1),
        ("key", None),
    ],
)
def test_a_value_of_another_type_is_named(name, value):
    with pytest.raises(InputError, match=rf"^row 2 of searches.jsonl has no valid '{name}': remove"):
        typed_rows(BriefSearchRow, [SEARCH, SEARCH | {name: value}], "searches.jsonl")


def test_a_missing_name_is_named():
    with pytest.raises(InputError, match="row 1 of uses.jsonl has no valid 'token'"):
        typed_rows(UseRow, [{"n": 7}], "uses.jsonl")


def test_the_types_reach_into_lists_of_objects():
    def seen(**changes):
        return {"key": "a", "status": "ok", "objects": [{"label": "cat", "score": 1, "box": [0, 0, 4, 4], **changes}]}

    assert typed_rows(DetectRow, [seen(), {"key": "a", "status": "error", "error": "why"}], "rows")
    for changes in ({"box": [0, 0, 4]}, {"score": None}, {"label": 3}):
        with pytest.raises(InputError, match="'objects'"):
            typed_rows(DetectRow, [seen(**changes)], "rows")
    with pytest.raises(InputError, match="'status'"):
        typed_rows(DetectRow, [{"key": "a", "status": "done"}], "rows")
