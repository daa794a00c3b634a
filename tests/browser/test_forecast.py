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


def test_search_controls_appear_only_for_search_methods(page, shoot):
    """And the forecast is of at most as many images as their budget is worth."""
    open_tab(page, "Evaluate")
    detector, budget, forecast = (page.locator(f"#evaluate-{name}") for name in ("detector", "budget", "forecast"))
    expect(page.get_by_label("Does the search make counts exact?")).to_be_visible()
    expect(detector).to_be_hidden()
    page.get_by_label("Does the search make counts exact?").check()
    expect(detector).to_be_visible()
    expect(budget).to_be_visible()
    expect(forecast).to_contain_text("up to 372 images")  # 12 plain ones, and 12 x 30
    budget.get_by_role("spinbutton").fill("10")
    expect(forecast).to_contain_text("up to 132 images")
    shoot(page, "evaluate-search")
    page.get_by_label("count search: between number words, then other seeds").uncheck()
    expect(budget).to_be_hidden()
    expect(forecast).to_contain_text("12 images")
