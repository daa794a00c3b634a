"""One server for all tests of the app, with a tiny model beside the bundled one."""

import pytest

pytest.importorskip("gradio")

QUICK = {"model": "tiny", "size": "64x64", "steps": 2}


@pytest.fixture(scope="session")
def options(tmp_path_factory, tiny_folder):
    from t2i_tools.ui.options import AppOptions, Limits

    models = tmp_path_factory.mktemp("shelf")
    (models / "tiny").symlink_to(tiny_folder)
    limits = Limits(pixels=256 * 256, steps=60, images=6, queue=60)
    return AppOptions(output=tmp_path_factory.mktemp("app"), models=models, port=None, limits=limits, device="cpu")


@pytest.fixture(scope="session")
def server(options):
    """(url, desk) of a running server."""
    from t2i_tools.ui import launch

    page, desk = launch(options, block=False)
    yield page.local_url, desk
    desk.close()


@pytest.fixture
def client(server):
    from gradio_client import Client

    return Client(server[0], verbose=False, httpx_kwargs={"timeout": 120})
