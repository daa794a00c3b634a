"""Any file for every reader: a result or one line, within two seconds and bounded memory."""

import random
import resource
from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from support.mutations import mutate
from support.readers import READERS, attempt, harmed

EXAMPLES, SLOW_EXAMPLES = 150, 30
MORE_MEMORY = 2**20  # KiB that all the files of a reader may add to the peak
ANYTHING = st.binary(max_size=400) | st.text(max_size=400).map(lambda text: text.encode("utf-8", "surrogatepass"))


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_any_file(reader, tmp_path):
    if reader.name.startswith("yolo") and not find_spec("ultralytics"):
        pytest.skip("needs the extra count")
    (tmp_path / "whole").mkdir()
    reader.lay(tmp_path / "whole")
    whole = (tmp_path / "whole" / reader.file).read_bytes()
    assert not attempt(reader, tmp_path / "whole").message
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(
        max_examples=SLOW_EXAMPLES if reader.slow else EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False), ANYTHING, st.sampled_from(("harm", "splice", "other")))
    def look(chance: random.Random, other: bytes, what: str):
        content = other if what == "other" else mutate(whole, other or whole, reader.form, chance)
        result = attempt(reader, harmed(reader, tmp_path / "whole", tmp_path / "harmed", content))
        assert not result.fault, result

    look()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < MORE_MEMORY
