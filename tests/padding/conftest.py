import pytest
from support.newer_pipelines import MOSTLY_SLOW
from support.shared import shared


@pytest.fixture(params=MOSTLY_SLOW)
def name(request):
    return request.param


@pytest.fixture
def pipe(name):
    return shared(name)
