import numpy as np
import pytest

from t2i_tools.evaluation.studies.retrieval import compared, first_hits, retrieval


def test_first_hits():
    answers = np.eye(3)
    queries = np.array([[1.0, 0, 0], [0.9, 0.1, 0], [0.5, 0.5, 0.5]])
    assert first_hits(queries, answers).tolist() == [True, False, False]  # the last is a tie
    both = retrieval(queries, answers)
    assert both["I2T"].tolist() == [True, False, False]
    assert both["T2I"].tolist() == [True, False, True]


def test_compared():
    baseline = np.arange(100) < 40
    better = np.arange(100) < 70
    told = compared(better, baseline)
    assert told["value"] == 0.7
    assert told["difference"][0] == pytest.approx(0.3)
    assert told["difference"][1] > 0.2
    assert told["p"] == pytest.approx(2**-29)  # 30 of 30 went one way
    assert compared(baseline, baseline)["p"] == 1.0
