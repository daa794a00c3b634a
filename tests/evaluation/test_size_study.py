import dataclasses
import math

import numpy as np
import pytest
import torch

from t2i_tools.detectors.detections import Detections
from t2i_tools.errors import InputError
from t2i_tools.evaluation.reports.protocol import Protocol
from t2i_tools.evaluation.studies.advice import (
    CONTROLS,
    OPTIONS,
    Evidence,
    Point,
    advise,
    corrected_low,
    held_out,
    losses,
    points_of,
    read_evidence,
    write_evidence,
)
from t2i_tools.evaluation.studies.size_study import (
    calibrate,
    correct,
    figures_table,
    fitting,
    primary,
    summarize_size,
    to_markdown,
)
from t2i_tools.metrics import Interval


def objects(n, score=0.9, side=10.0):
    return [{"label": "cat", "score": score, "box": [20, 20, 20 + side, 20 + side]} for _ in range(n)]


def row(method, prompt, count, found, **more):
    return {
        "method": method,
        "prompt": f"prompt {prompt}",
        "label": "cat",
        "count": count,
        "seed": prompt,
        "status": "ok",
        "width": 64,
        "height": 64,
        "objects": objects(found),
        **more,
    }


def seen(n, score, side=10.0):
    boxes = torch.tensor([[5.0, 5.0, 5 + side, 5 + side]]).repeat(n, 1)
    return Detections(["cat"] * n, boxes, torch.full((n,), score))


COUNTS = [n % 7 for n in range(140)]
PERFECT = calibrate([seen(n, 0.9) for n in COUNTS], ["cat"] * 140, COUNTS, usual=0.35)


def test_a_judge_is_calibrated():
    """This one sees one object too many, of a score of 0.3, in every picture."""
    found = [Detections(["cat"] * (n + 1), *pair) for n in COUNTS for pair in [extra(n)]]
    calibration = calibrate(found, ["cat"] * 140, COUNTS, usual=0.2)
    assert 0.3 < calibration.threshold < 0.9
    assert calibration.exact.estimate == 1
    assert np.array_equal(calibration.confusion, np.diag(np.diag(calibration.confusion)))
    assert PERFECT.threshold == pytest.approx(0.35)
    assert PERFECT.area == pytest.approx(100)


def extra(n):
    boxes = torch.tensor([[5.0, 5.0, 15.0, 15.0]]).repeat(n + 1, 1)
    return boxes, torch.tensor([0.9] * n + [0.3])


def test_the_calibration_on_objects_of_the_same_area():
    large = dataclasses.replace(PERFECT, area=1000.0)
    rows = [row("plain", n, 2, 2) for n in range(4)]
    assert fitting([large, PERFECT], rows) is PERFECT
    rows = [row("plain", n, 2, 2, objects=objects(2, side=32.0)) for n in range(4)]
    assert fitting([large, PERFECT], rows) is large


def test_methods_are_compared_with_the_baseline():
    """`better` is right wherever the prompt is even, `worse` draws one more than plain."""
    rows = []
    for n in range(40):
        count = 1 + n % 3
        rows += [
            row("plain", n, count, count + (n % 4 > 0)),
            row("better", n, count, count + n % 2),
            row("worse", n, count, count + 1 + (n % 4 > 0)),
            row("same", n, count, count + (n % 4 > 0)),
        ]
    rows.append(row("better", 99, 1, 1))  # without a partner
    rows.append(row("plain", 98, 1, 1, status="error"))
    summaries = correct({(64, 64): summarize_size(rows, PERFECT, Protocol(margin=0.1))})
    found = {one.method: one for one in summaries[64, 64]}
    assert found["plain"].figures["exact"].estimate == 0.25
    assert found["plain"].figures["exact corrected"].estimate == pytest.approx(0.25)
    assert found["better"].n == 41
    against = found["better"].against
    assert against["exact"].difference.estimate == pytest.approx(0.25)
    assert against["exact"].p < 0.01 and against["exact"].equivalent is False
    assert found["same"].against["exact"].equivalent
    assert found["same"].against["exact"].difference.high == pytest.approx(1 - 0.025 ** (1 / 40))
    asked = sum(1 + n % 3 for n in range(40))
    assert found["worse"].figures["duplication"].estimate == pytest.approx(math.log((asked + 70) / asked))
    assert found["worse"].against["duplication"].difference.low > 0
    for one in found.values():  # 3 methods x 3 figures that are means
        tests = [test for test in one.against.values() if test.p is not None]
        assert len(tests) == (0 if one.method == "plain" else 3)
        assert all(test.p <= test.p_holm <= min(1, 9 * test.p) for test in tests)
    table = figures_table({(64, 64): list(found.values())})
    assert "(+0.250*)" in table[1]["exact"]
    assert to_markdown(table).count("\n") == 5
    with pytest.raises(InputError, match="baseline 'plain'"):
        summarize_size(rows[1:2], PERFECT, Protocol())


def test_the_one_comparison_of_a_protocol():
    """Over two sizes: half the prompts gain at the one, none at the other."""
    small = [row(method, n, 1, 1 + (method == "plain" or n % 2)) for n in range(40) for method in ("plain", "scaled")]
    large = [row(method, n, 2, 2) for n in range(40) for method in ("plain", "scaled")]
    sizes = {(64, 64): (small, PERFECT), (256, 256): (large, PERFECT)}
    claimed = primary(sizes, "scaled", Protocol())
    assert claimed.difference.estimate == pytest.approx(0.25)
    assert claimed.difference.n == 40  # prompts
    assert claimed.p < 0.001 and claimed.equivalent is False
    for margin, shown in ((0.05, False), (0.1, True)):  # forty prompts do not show the smaller one
        alone = primary({(256, 256): (large, PERFECT)}, "scaled", Protocol(margin=margin))
        assert alone.equivalent is shown
    with pytest.raises(InputError, match="in common"):
        primary(sizes, "absent", Protocol())


def interval(estimate, half=0.05):
    return Interval(estimate, estimate - half, estimate + half, 0.95, 200)


EVIDENCE = Evidence(
    "bundled",
    "abc",
    (128, 128),
    "test",
    200,
    [
        Point((128, 128), "plain", interval(0.5)),
        Point((64, 64), "plain", interval(0.2)),
        Point((64, 64), "entropy_scaling", interval(0.3), interval(0.1)),
        Point((64, 64), "two_pass", interval(0.28), interval(0.08)),
        Point((256, 256), "plain", interval(0.2)),
        Point((256, 256), "entropy_scaling", interval(0.23), interval(0.03)),
        Point((256, 256), "two_pass", interval(0.4), interval(0.2)),
        Point((300, 256), "plain", interval(0.1)),
        Point((300, 256), "entropy_scaling", interval(0.12), interval(0.02)),
        Point((300, 256), "two_pass", interval(0.2), interval(0.1)),
    ],
)


@pytest.mark.parametrize(
    ("size", "method"),
    [
        ((128, 128), "plain"),  # its own
        ((64, 64), "entropy_scaling"),
        ((72, 60), "entropy_scaling"),
        ((250, 260), "two_pass"),
        ((320, 256), "two_pass"),
        ((128, 64), None),  # a shape that was not measured
        ((512, 512), None),
    ],
)
def test_advice(size, method):
    advice = advise(EVIDENCE, size, (128, 128))
    assert advice.method == method


def test_what_is_not_shown_to_be_better_is_off():
    points = [point for point in EVIDENCE.points if point.method != "two_pass"]
    advice = advise(dataclasses.replace(EVIDENCE, points=points), (256, 256), (128, 128))
    assert (advice.method, advice.options, len(advice.points)) == ("plain", "", 2)


def test_where_no_method_was_tried_that_is_the_reason():
    advice = advise(EVIDENCE, (112, 112), (128, 128))
    assert (advice.method, advice.why) == ("plain", "at the nearest size measured, 128x128, no method was tried")


def test_a_control_is_never_advised():
    """Even where it is the best by far."""
    control = Point((64, 64), "entropy_extreme", interval(0.9), interval(0.7))
    assert advise(dataclasses.replace(EVIDENCE, points=[*EVIDENCE.points, control]), (64, 64), (128, 128)).method == (
        "entropy_scaling"
    )
    alone = dataclasses.replace(EVIDENCE, points=[EVIDENCE.points[1], control])
    assert advise(alone, (64, 64), (128, 128)).method == "plain"
    assert set(CONTROLS) < set(OPTIONS)


def test_of_many_methods_the_bound_is_corrected():
    """0.06 with half a width of 0.05 is shown where one method was tried, not where six were."""
    points = [Point((64, 64), "plain", interval(0.2)), Point((64, 64), "two_pass", interval(0.26), interval(0.06))]
    others = [Point((n, n), "two_pass", interval(0.2), interval(0.0)) for n in (200, 208, 216, 224, 232)]
    for more, method in (([], "two_pass"), (others, "plain")):
        assert advise(dataclasses.replace(EVIDENCE, points=points + more), (64, 64), (128, 128)).method == method
    assert corrected_low(interval(0.06), 1) == pytest.approx(0.01)
    assert corrected_low(interval(0.06), 6) == pytest.approx(0.06 - 0.05 * 2.6383 / 1.95996, abs=1e-5)


def test_without_evidence():
    advice = advise(None, (64, 64), (128, 128))
    assert (advice.method, advice.options, advice.points) == (None, None, [])
    assert advise(None, (128, 128), (128, 128)).method == "plain"
    assert advise(None, (128, 128), None).method is None


def test_held_out_sizes():
    assert [(one["size"], one["advised"]) for one in held_out(EVIDENCE)] == [
        ("64x64", "not measured"),
        ("256x256", "two_pass"),
        ("256x300", "two_pass"),
    ]
    assert held_out(EVIDENCE)[1]["loss"] == 0
    worse = dataclasses.replace(EVIDENCE.points[-1], exact=interval(0.05))
    found = held_out(dataclasses.replace(EVIDENCE, points=[*EVIDENCE.points[:-1], worse]))
    assert found[2]["loss"] == pytest.approx(0.12 - 0.05)


def test_what_the_advice_loses_at_other_sizes():
    """Where two passes are advised by what lies near, and are not the best."""
    points = [Point((240, 256), method, interval(share)) for method, share in (("plain", 0.3), ("two_pass", 0.25))]
    (found,) = losses(EVIDENCE, dataclasses.replace(EVIDENCE, points=points))
    assert (found["size"], found["advised"], found["loss"]) == ("256x240", "two_pass", pytest.approx(0.05))


def test_evidence_on_disk(tmp_path):
    write_evidence(tmp_path / "sizes.json", EVIDENCE)
    assert read_evidence(tmp_path / "sizes.json") == EVIDENCE
    for text in ("{", "[]", '{"format": 0}', '{"format": 1, "points": [{}]}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InputError, match="holds no evidence"):
            read_evidence(tmp_path / "bad.json")
    with pytest.raises(InputError, match="cannot read"):
        read_evidence(tmp_path / "absent.json")


def test_points_of_summaries():
    rows = [row(method, n, 1, 1 + n % 2) for n in range(8) for method in ("plain", "two_pass", "shifted")]
    points = points_of({(64, 64): summarize_size(rows, PERFECT, Protocol())})
    assert [(point.size, point.method, point.exact.estimate) for point in points] == [
        ((64, 64), "plain", 0.5),
        ((64, 64), "two_pass", 0.5),
    ]
    assert points[0].difference is None
    assert points[1].difference.estimate == 0
