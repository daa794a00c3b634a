"""Which tab is open in Chromium: a click opens one at once, and no late answer of the server's takes a user away."""

import threading

import pytest
from support.browsing import done, generate, newest, open_tab

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=120_000)


@pytest.fixture
def held(app, monkeypatch):
    """Holds back what the server answers about a job, until it is set."""
    free, job_of = threading.Event(), app[1].job_of

    def waiting(owner, name):
        free.wait(60)
        return job_of(owner, name)

    monkeypatch.setattr(app[1], "job_of", waiting)
    yield free
    free.set()


def is_open(page, name):
    return page.get_by_role("tab", name=name, exact=True).get_attribute("aria-selected") == "true"


def test_the_tab_of_a_click_opens_at_once_and_the_next_one_stays(page, app, held):
    generate(page, "three cats")
    done(page, "generate")
    page.get_by_role("button", name="Send to Count").click()
    assert is_open(page, "Count")  # the server has not answered yet
    open_tab(page, "Grid")
    held.set()
    expect(page.locator("#count-prompt textarea")).to_have_value("{count} cats")
    assert is_open(page, "Grid")
    page.locator(".t2i-past").first.click()
    assert is_open(page, "Generate")


def test_the_address_of_a_job_opens_its_tab_unless_the_user_opens_another(page, app, held):
    generate(page, "three cats")
    done(page, "generate")
    address = f"{app[0]}?job={newest(app).id}"
    open_tab(page, "Count")
    page.goto(address)
    page.get_by_role("tab", name="Grid").click()
    held.set()
    expect(page.locator("#generate-actions")).to_contain_text("Back to the latest")
    assert is_open(page, "Grid")
