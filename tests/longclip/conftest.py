import pytest
from support.longtexts import FAMILIES
from support.shared import shared


@pytest.fixture(params=FAMILIES)
def pipe(request):
    return shared(request.param)


@pytest.fixture
def sd():
    return shared("stable_diffusion")
