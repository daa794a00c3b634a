"""The app in Chromium: each tab does its job, by mouse and by keyboard, and can be used by everyone."""

import time

import pytest

from t2i_tools.imagefile import read_settings

TABS = ("Generate", "Count", "Probe", "Grid", "Evaluate", "My jobs")


def open_tab(page, name):
    page.get_by_role("tab", name=name).click()
    return name.lower()


def unfold(page, label):
    page.locator("button:visible", has_text=label).click()


def fill(page, label, value):
    page.locator(f"label:visible:has-text('{label}') >> input, textarea").first.fill(value)


def slide(page, label, value):
    box = page.locator(f"input[type=number][aria-label='number input for {label}']:visible")
    box.fill(str(value))
    box.press("Enter")


def done(page, kind, how="Done"):
    page.locator(f"#{kind}-status", has_text=how).wait_for(timeout=180_000)


def generate(page, prompt="two cats", steps=2):
    page.locator("#prompt textarea").fill(prompt)
    if not page.locator("input[aria-label='number input for Steps (0: usual)']:visible").count():
        unfold(page, "Size, steps, negative prompt")
    slide(page, "Steps (0: usual)", steps)
    page.locator("#generate").click()


def newest(app):
    """The newest job of all."""
    rows = app[1].jobs._rows(
        "SELECT number, id, owner, kind, asked, state, attempts, result, error, created, finished "
        "FROM jobs ORDER BY number DESC LIMIT 1"
    )
    return rows[0]


def test_generate_shows_the_image_and_its_file(page, app, shoot):
    generate(page)
    done(page, "generate")
    page.locator(".t2i-results img").first.wait_for()
    (path,) = app[1].paths(newest(app))
    assert read_settings(path)["prompt"] == "two cats"
    shoot(page, "generate")


def test_shift_enter_generates_and_a_reload_finds_the_result(page, app):
    generate(page, "by keyboard")
    done(page, "generate")
    before = newest(app).number
    page.locator("#prompt textarea").press("Shift+Enter")
    page.wait_for_function("() => document.querySelector('#generate-status').innerText.includes('Done')")
    while newest(app).number == before or newest(app).open:
        time.sleep(0.1)
    page.reload()
    done(page, "generate")
    page.locator(".t2i-results img").first.wait_for()


def test_cancel_within_a_step(page, app):
    generate(page, steps=150)
    page.locator("#generate-status", has_text="step ").wait_for()
    bench = app[1].worker._bench
    page.locator("#generate-cancel").click()
    assert bench.stop.wait(20)
    at_cancel = bench.live.done
    done(page, "generate", "Cancelled")
    assert bench.live.done <= at_cancel + 1


def test_a_dropped_png_restores_all_settings_and_makes_the_same_bytes(page, app):
    page.locator("#seed input, #seed textarea").first.fill(str(2**62 + 1))
    generate(page, "three stars", steps=3)
    done(page, "generate")
    (first,) = app[1].paths(newest(app))
    page.reload()
    page.locator("input[type=file][accept*='.png']").first.set_input_files(first)
    page.wait_for_function("() => document.querySelector('#prompt textarea').value === 'three stars'")
    before = newest(app).number
    page.locator("#generate").click()
    while newest(app).number == before or newest(app).open:
        time.sleep(0.1)
    (second,) = app[1].paths(newest(app))
    assert second.read_bytes() == first.read_bytes()


def test_errors_are_one_line_in_the_page(page):
    page.locator("#prompt textarea").fill("")
    page.locator("#generate").click()
    page.locator("#generate-status [role=alert]", has_text="the prompt is empty: say what to draw").wait_for()


def test_the_ruler_says_what_is_cut(page):
    page.locator("#ruler", has_text="tokens").wait_for()
    page.locator("#prompt textarea").fill("a cat on a red background " * 15)
    page.locator("#ruler s").wait_for()
    unfold(page, "Long prompt, count token")
    page.get_by_label("window by window").click()
    page.locator("#ruler", has_text="2 windows").wait_for()


def test_count_searches_and_keeps_a_token(page, app, shoot):
    open_tab(page, "Count")
    unfold(page, "Size, steps, seed, model, judge")
    slide(page, "Steps (0: usual)", 2)
    slide(page, "Budget of an image", 4)
    page.locator("#count-run").click()
    done(page, "count")
    page.locator(".t2i-strip img").first.wait_for()
    page.locator("th", has_text="judged").wait_for()
    assert list(app[1].shelf.tokens())
    shoot(page, "count")


def test_probe_gives_a_verdict_in_words(page, shoot):
    open_tab(page, "Probe")
    page.locator("#prompts textarea").fill("two cats\na red car")
    unfold(page, "Seeds, size, steps, model")
    slide(page, "Steps (0: usual)", 2)
    page.locator("#probe-run").click()
    done(page, "probe")
    page.locator(".t2i-pads", has_text="rows of padding").wait_for()
    shoot(page, "probe")


def test_grid_measures_each_cell(page, shoot):
    open_tab(page, "Grid")
    page.get_by_label("Values across").fill("1, 2")
    page.locator("#grid-run").click()
    done(page, "grid")
    assert page.locator(".t2i-table:visible tbody tr").count() == 4
    shoot(page, "grid")


def test_evaluate_shows_its_report(page, shoot):
    open_tab(page, "Evaluate")
    unfold(page, "Own prompts, sizes, steps, judge")
    slide(page, "Steps (0: usual)", 1)
    rows = {"name": "own.csv", "mimeType": "text/csv", "buffer": b"prompt,class,count\ntwo cats,cat,2\na dog,dog,1\n"}
    page.locator("input[type=file][accept*='.csv']").set_input_files(rows)
    page.locator("text=own.csv").wait_for()
    page.locator("#evaluate-run").click()
    done(page, "evaluate")
    page.frame_locator("iframe.t2i-report").locator("text=exact").first.wait_for()
    shoot(page, "evaluate")
    open_tab(page, "My jobs")
    page.locator("td", has_text="evaluate").wait_for()
    shoot(page, "jobs")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_that_is_ours(browser, app, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{app[0]}?__theme={scheme}")
    page.locator("#generate").wait_for()
    found = []
    for tab in TABS:
        open_tab(page, tab)
        time.sleep(0.5)  # of fading in, which would count as low contrast
        for violation in axe.run(page).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                found += [(tab, violation["id"], node["html"][:160]) for node in violation["nodes"]]
    context.close()
    assert [one for one in found if not gradios(one)] == []


def gradios(violation):
    """What lies in a component of Gradio's and can only be mended there."""
    return any(mark in violation[2] for mark in GRADIOS)


GRADIOS = ('aria-label="Empty value"',)  # the placeholder of an empty gallery or picture


def test_usable_on_a_phone(browser, app, shoot):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(app[0])
    page.locator("#generate").wait_for()
    generate(page)
    done(page, "generate")
    page.locator(".t2i-results img").first.wait_for()
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390
    image = page.locator(".t2i-results img").first.bounding_box()
    assert image["y"] < page.locator("text=Shape").first.bounding_box()["y"]  # the picture before the options
    shoot(page, "phone")
    context.close()


def test_dark(browser, app, shoot):
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="dark")
    page = context.new_page()
    page.goto(app[0])
    page.locator("#generate").wait_for()
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(int(part) for part in background.strip("rgba()").split(",")[:3]) < 150
    shoot(page, "dark")
    context.close()


def test_nothing_is_fetched_from_elsewhere(browser, app):
    context, asked = browser.new_context(), []
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(app[0])
    page.locator("#generate").wait_for()
    assert [url for url in asked if not url.startswith((app[0].rstrip("/"), "data:", "blob:"))] == []
    context.close()
