"""Names and paths of any type, from a client that checks nothing: one line each."""

from dataclasses import replace

import pytest

from t2i_tools.errors import InputError
from t2i_tools.ui.registry import look_up
from t2i_tools.ui.service import Service
from t2i_tools.ui.uploads import uploaded

ODD = ["\0", "\ud800", "x" * 10_000, "../../etc/passwd", "", 5, None, [1], {"a": 1}, 1.5, "/" * 5000 + "a\nb"]


@pytest.fixture(scope="module")
def service(options, tmp_path_factory):
    service = Service(replace(options, output=tmp_path_factory.mktemp("out")))
    yield service
    service.close()


@pytest.mark.parametrize("name", ODD, ids=range(len(ODD)))
def test_odd_names(service, name):
    for look in (
        lambda: look_up(name, {"cat-2": "file"}, "count token"),
        lambda: service.registry.of("me").forget_token(name),
        lambda: service.jobs.get(name),
        lambda: uploaded(service, name, (".png",)),
        lambda: uploaded(service, {"path": name}, (".png",)),
    ):
        with pytest.raises(InputError) as caught:
            look()
        assert len(caught.value.args[0].splitlines()) == 1
        assert len(caught.value.args[0]) < 500
