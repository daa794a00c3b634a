import pipezoo
import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Rounding depends on how threads share the sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def pipes():
    """Each tiny pipeline, built once; tests leave them as they are."""
    built = {}

    def get(name):
        if name not in built:
            built[name] = pipezoo.build(name)
        return built[name]

    return get


@pytest.fixture(params=pipezoo.PIPELINES)
def name(request):
    return request.param


@pytest.fixture
def pipe(pipes, name):
    return pipes(name)
