"""Weights of a prompt act and are shown in Chromium without being asked for."""

import pytest
from support.browsing import done, generate, newest

from t2i_tools.images.metadata import read_settings

expect = pytest.importorskip("playwright.sync_api").expect


def test_weights_are_shown_and_act(page, app):
    generate(page, "a (red:1.3) cat")
    expect(page.locator("#ruler mark b")).to_have_text("red1.3")
    done(page, "generate")
    assert read_settings(app[1].paths(newest(app))[0])["long_prompts"]["method"] == "chunk"
