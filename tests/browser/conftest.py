"""Chromium, a server of the app on a tiny model, and screenshots where T2I_SCREENSHOTS names a folder."""

import os
import shutil
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def app(tmp_path_factory, tiny_folder):
    """(url, service) of a running server."""
    pytest.importorskip("gradio")
    from t2i_tools.ui import AppOptions, launch

    models = tmp_path_factory.mktemp("models")
    (models / "tiny").symlink_to(tiny_folder)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GRADIO_TEMP_DIR", "")  # which `launch` changes
        options = AppOptions(output=tmp_path_factory.mktemp("app"), models=models, model="tiny")
        page, service = launch(options, block=False)
        yield page.local_url, service
        service.close()
        page.close()


@pytest.fixture
def page(app, browser, monkeypatch):
    """A page of the app that must end without an error of its scripts, in a browser that has not been here before."""
    # Gradio has one folder for uploads per process: another server may have been started since.
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(app[1].output / "files"))
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, errors = context.new_page(), []
    page.set_default_timeout(120_000)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(app[0])
    page.locator("#generate-run").wait_for()
    yield page
    context.close()
    assert errors == []


@pytest.fixture
def shoot():
    """Saves a screenshot of the whole page, where one is wanted."""

    def save(page, name):
        if folder := os.environ.get("T2I_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    return save
