import subprocess
import sys

import pytest

from t2i_tools import metrics
from t2i_tools.errors import UnsupportedModelError


def test_every_public_name_is_there():
    assert all(getattr(metrics, name) is not None for name in metrics.__all__)
    assert set(metrics.__all__) <= set(dir(metrics))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = metrics.nonsense


def test_statistics_need_no_torch():
    code = "import sys, t2i_tools.metrics as m; m.wilson, m.holm, m.agreement, m.METRICS, m.mcnemar_power"
    code += "; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.image.kid", None)
    monkeypatch.delitem(sys.modules, "t2i_tools.metrics.distribution", raising=False)
    monkeypatch.delitem(vars(metrics), "kid", raising=False)
    with pytest.raises(UnsupportedModelError, match=r"kid is missing .*pip install '\.\[metrics\]'"):
        _ = metrics.kid
