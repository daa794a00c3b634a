import pipezoo
import pytest
from longtexts import FAMILIES


@pytest.fixture(scope="module")
def pipes():
    return {name: pipezoo.build(name) for name in FAMILIES}


@pytest.fixture(params=FAMILIES)
def pipe(pipes, request):
    return pipes[request.param]


@pytest.fixture
def sd(pipes):
    return pipes["stable_diffusion"]
