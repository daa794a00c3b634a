"""What a user of the app does in a browser."""

from playwright.sync_api import TimeoutError

from t2i_tools.ui.queue import COLUMNS


def opened(browser, app, query="", **look):
    """The app in a browser that looks so and has not been here before."""
    context = browser.new_context(**look)
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(f"{app[0]}{query}")
    page.locator("#generate-run").wait_for()
    return page


def open_tab(page, name):
    """Go to a tab; the kind of its jobs. A click that Gradio loses, rarely and on a busy machine, comes again."""
    tab = page.get_by_role("tab", name=name)
    for _ in range(3):
        tab.click()
        try:
            tab.and_(page.locator("[aria-selected=true]")).wait_for(timeout=10_000)
            break
        except TimeoutError:
            continue
    return name.lower()


def unfold(page, label):
    """Open a fold, or close it."""
    page.locator("button:visible", has_text=label).click()


def fill(page, label, value):
    """Write into a box of the tab that is open."""
    page.get_by_label(label, exact=True).locator("visible=true").fill(str(value))


def done(page, kind, how="Done"):
    """Wait until the job of this kind has ended."""
    page.locator(f"#{kind}-status", has_text=how).wait_for(timeout=180_000)


def generate(page, prompt="two cats", steps=2):
    """Start an image of few steps."""
    page.locator("#prompt textarea").fill(prompt)
    if not page.get_by_label("Steps", exact=True).locator("visible=true").count():
        unfold(page, "Negative prompt, steps")
    fill(page, "Steps", steps)
    page.locator("#generate-run").click()


def newest(app):
    """The newest job of all."""
    return app[1].jobs._rows(f"SELECT {COLUMNS} FROM jobs ORDER BY number DESC LIMIT 1")[0]


def slide(page, label, value):
    """Set a slider of the tab that is open."""
    box = page.locator(f"input[type=number][aria-label='number input for {label}']:visible")
    box.fill(str(value))
    box.press("Enter")


def choose(page, label, name):
    """Choose from a dropdown of the tab that is open."""
    page.locator(f"input[aria-label='{label}']:visible").click()
    page.get_by_role("option", name=name, exact=True).click()


def unfold_all(page):
    """Open every accordion of the visible tab, those inside others as well."""
    closed = page.locator("button.label-wrap:visible:not(.open)")
    while closed.count():
        closed.first.click()
