"""What the page says beforehand: what was measured at a size, an exact count, how long a job takes; and its charts."""

import pytest

pytest.importorskip("gradio")

from t2i_tools.evaluation.studies.advice import CONTROLS, OFF, OPTIONS
from t2i_tools.images.generate import Request
from t2i_tools.ui.advice import SETTINGS, WORDS, exact_advice, size_advice
from t2i_tools.ui.bars import bars_svg
from t2i_tools.ui.jobs.detect import records
from t2i_tools.ui.jobs.generate import GenerateValues
from t2i_tools.ui.model_sizes import ModelSize
from t2i_tools.ui.pace import Pace, work_of
from t2i_tools.ui.search_charts import charts_html, strip_html


def test_what_was_measured_at_a_size():
    assert "two passes drew " in (html := size_advice((128, 256), True))
    assert "data-act='advised' data-to='two_pass'" in html
    assert size_advice((128, 128), True) == size_advice((128, 256), False) == size_advice(None, True) == ""
    assert "Nobody has measured" in size_advice((1024, 1024), True)


def test_all_that_may_be_advised_has_words_and_settings():
    known = {name for name in OPTIONS if name != OFF} - set(CONTROLS)
    assert known <= SETTINGS.keys() & WORDS.keys()
    assert "data-to='entropy_auto'" in size_advice((96, 96), True)


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_advised_can_be_set(name):
    assert SETTINGS[name].keys() <= GenerateValues.model_fields.keys()


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("seven apples", "exactly seven"),
        ("two cats and three dogs", "exactly two and three"),
        ("a cat", ""),
        ("fifteen cats", ""),
        ("cats", ""),
    ],
)
def test_an_exact_count_is_offered_where_a_prompt_asks_for_one(prompt, words):
    html = exact_advice(prompt)
    assert bool(html) == bool(words)
    assert words in html


def test_the_pace_of_jobs_is_measured_and_outlives_the_server(tmp_path):
    pace, file = Pace(tmp_path / "pace.json"), tmp_path / "pace.json"
    assert pace.seconds("grid", "tiny", 10) is None
    pace.note("generate", "tiny", 10, 5.0)
    assert Pace(file).seconds("grid", "tiny", 20) == 10.0  # of another kind, while there is none of its own
    pace.note("grid", "tiny", 10, 20.0)
    assert Pace(file).seconds("grid", "tiny", 1) == 2.0
    assert Pace(file).seconds("grid", "other", 1) is None
    file.write_text("[broken")
    assert Pace(file).seconds("grid", "tiny", 1) is None


def test_larger_images_and_further_trials_are_more_work():
    requests = [Request("x", 0), Request("x", 0, size=(128, 64), steps=5)]
    assert work_of(requests, [1, 3], 20, ModelSize((64, 64), 8)) == 20 + 3 * 2 * 5


def test_all_trials_are_in_the_chart_and_the_best_is_marked_once():
    counts = [8, 6, 7]
    events = [
        {"method": "best_of", "step": i, "count": n, "counted": {"cat": n}, "found": str(n), "loss": None, "best": True}
        | {"image": "data:,", "exact": n == 7}
        for i, n in enumerate(counts)
    ]
    html = charts_html(events, {"cat": 7}, "best_of")
    assert html.count("<circle") == 3
    assert html.count("t2i-exact") == 1
    assert "8, 6, 7; 7 wanted" in html
    assert strip_html(events, {}).count(" best") == 1
    assert charts_html(events, {"cat": 7}, "token") == charts_html([], {"cat": 7}, "best_of") == ""


def test_bars_say_what_they_show():
    html = bars_svg([("needed & <b>", {"estimate": 0.25, "low": -2.0, "high": 0.5}, 0.3)], "Shares")
    assert "needed &amp; &lt;b&gt;: 25% [-200%, 50%]" in html
    assert html.count("<rect") == 1


def test_what_a_detector_saw_is_one_record_per_class():
    torch = pytest.importorskip("torch")
    from t2i_tools.detectors import Detections

    boxes = torch.tensor([[0.0, 0.0, 4.4, 4.0], [1.0, 1.0, 2.0, 2.0], [3.0, 3.0, 5.0, 5.0]])
    found = records(Detections(["cat", "dog", "cat"], boxes, torch.ones(3)), None)
    assert [(one["label"], one["counted"], len(one["boxes"])) for one in found] == [("cat", 2, 2), ("dog", 1, 1)]
    assert found[0]["boxes"][0] == [0, 0, 4, 4]
    nothing = Detections([], torch.zeros(0, 4), torch.zeros(0))
    assert records(nothing, "cat") == [{"label": "cat", "counted": 0, "boxes": []}]
    assert records(nothing, None) == []
