"""What was made stays within reach, in Chromium: addresses of jobs, the history beside the tabs, and kept forms."""

import re

import pytest
from support.browsing import done, fill, generate, newest, open_tab, opened, unfold
from support.slow_steps import slow_steps
from support.waiting import wait_until

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=120_000)


def test_the_address_of_a_job_opens_it_for_its_owner_alone(page, app, browser):
    generate(page, "one star")
    done(page, "generate")
    first = newest(app)
    page.locator("#prompt textarea").fill("two stars")
    page.locator("#generate-run").click()
    wait_until(lambda: newest(app).number > first.number and not newest(app).open, every=0.1)
    image = page.locator("#generate-stage .t2i-frame img")
    expect(image).to_have_attribute("src", _contains(newest(app).folder))
    page.locator(".t2i-past").nth(1).click()
    expect(image).to_have_attribute("src", _contains(first.folder))
    expect(page).to_have_url(_contains(f"job={first.id}"))
    open_tab(page, "Grid")
    page.reload()
    expect(image).to_have_attribute("src", _contains(first.folder))  # on its tab, which is before the user
    page.get_by_role("button", name="Back to the latest").click()
    expect(image).to_have_attribute("src", _contains(newest(app).folder))
    stranger = opened(browser, app, f"?job={first.id}")
    expect(stranger.locator(".toast-body")).to_contain_text("you have no job")
    expect(stranger.locator(".t2i-past")).to_have_count(0)
    assert stranger.locator("#generate-stage img").count() == 0
    stranger.context.close()


@pytest.mark.slow
def test_forms_outlive_a_reload_and_settings_come_back(page, app):
    generate(page, "three stars", steps=3)
    done(page, "generate")
    page.locator("#prompt textarea").fill("something else")
    _kept(page, "generate", lambda: fill(page, "Steps", 7))
    open_tab(page, "Count")
    count = page.locator("#count-prompt textarea")
    _kept(page, "count", lambda: count.fill("{count} frogs"))
    page.reload()
    prompt = page.locator("#prompt textarea")
    expect(prompt).to_have_value("something else")
    open_tab(page, "Count")
    expect(count).to_have_value("{count} frogs")
    open_tab(page, "Generate")
    page.get_by_role("button", name="Use settings").locator("visible=true").click()
    expect(prompt).to_have_value("three stars")
    unfold(page, "Negative prompt, steps")
    expect(page.get_by_label("Steps", exact=True).locator("visible=true")).to_have_value("3")


@pytest.mark.slow
def test_my_jobs_is_live_and_deletes(page, app, shoot):
    with slow_steps(app[1], 0.5):
        generate(page, "a slow star", steps=60)
        page.locator("#generate-status", has_text="step ").wait_for()
        open_tab(page, "My jobs")
        row = page.locator("#jobs-open article")
        expect(row).to_contain_text("a slow star")
        expect(row).to_contain_text("step ")
        row.get_by_role("button", name="Cancel").click()
        ended = page.locator("#jobs-ended article")
        expect(ended).to_contain_text("cancelled")
        expect(row).to_have_count(0)
    shoot(page, "my-jobs")
    page.on("dialog", lambda dialog: dialog.accept())
    ended.get_by_role("button", name="Delete").click()
    expect(ended).to_have_count(0)


def _kept(page, kind, change):
    """Change a form and wait until the browser has kept that."""
    read = f"localStorage.getItem('t2i-{kind}')"
    before = page.evaluate(read)
    change()
    page.wait_for_function(f"before => {read} !== before", arg=before)


def _contains(text):
    return re.compile(f".*{re.escape(text)}.*")
