"""The expected time of a job in Chromium follows what the machine has learned since the page was opened."""

import pytest
from support.browsing import done, generate, open_tab

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=120_000)


def test_a_time_is_told_after_the_first_job_on_any_tab(page, app, monkeypatch):
    monkeypatch.setattr(app[1].pace, "_known", {})
    forecast = page.locator("#grid-forecast")
    page.get_by_role("tab", name="Grid").click()
    page.get_by_label("Values across").fill("1, 2")
    expect(forecast).to_have_text("4 images; a time is estimated after the first job")
    open_tab(page, "Generate")
    generate(page)
    done(page, "generate")
    open_tab(page, "Grid")
    expect(forecast).to_contain_text("4 images, about ")
