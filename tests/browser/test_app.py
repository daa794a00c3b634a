"""The app in Chromium: each tab does its job, by mouse and by keyboard, and can be used by everyone."""

import json
import time

import pytest
from support.browsing import choose, done, fill, generate, newest, open_tab, opened, slide, unfold, unfold_all
from support.slow_steps import slow_steps
from support.waiting import wait_until

from t2i_tools.images.metadata import read_settings

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=120_000)
TABS = ("Generate", "Count", "Probe", "Grid", "Evaluate", "Detect", "My jobs")


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
    wait_until(lambda: newest(app).number > before and not newest(app).open, every=0.1)
    page.reload()
    done(page, "generate")
    shown = page.locator(".t2i-results img").first
    shown.wait_for()
    (path,) = app[1].paths(newest(app))
    assert newest(app).number == before + 1 and path.name in shown.get_attribute("src")


def test_cancel_within_a_step(page, app):
    with slow_steps(app[1], 1.0) as told:
        generate(page, steps=60)
        page.locator("#generate-status", has_text="step ").wait_for()
        progress = app[1].worker._context.progress
        page.locator("#generate-cancel").click()
        done(page, "generate", "Cancelled")
    assert progress.done <= told[0] + 1 < 60


def test_each_step_is_shown(page, app):
    with slow_steps(app[1], 1.0):
        generate(page, steps=5)
        preview = page.locator("#generate-status img[alt='the image so far']")
        seen = set()

        def ended():
            seen.update(preview.evaluate_all("shown => shown.map(one => one.src)"))  # it may be gone at any moment
            return page.locator("#generate-status", has_text="Done").count()

        wait_until(ended, every=0.1)
    assert len(seen) >= 2


def test_a_dropped_png_restores_all_settings_and_makes_the_same_bytes(page, app):
    page.locator("#seed input, #seed textarea").first.fill(str(2**62 + 1))
    generate(page, "three stars", steps=3)
    done(page, "generate")
    (first,) = app[1].paths(newest(app))
    page.reload()
    page.locator("input[type=file][accept*='.png']:not([multiple])").first.set_input_files(first)
    page.wait_for_function("() => document.querySelector('#prompt textarea').value === 'three stars'")
    before = newest(app).number
    page.locator("#generate-run").click()
    wait_until(lambda: newest(app).number > before and not newest(app).open, every=0.1)
    (second,) = app[1].paths(newest(app))
    assert second.read_bytes() == first.read_bytes()


def test_errors_are_one_line_in_the_page(page, app):
    page.locator("#prompt textarea").fill("")
    page.locator("#generate-run").click()
    alert = page.locator("#generate-status [role=alert]")
    expect(alert).to_have_text("the prompt is empty: say what to draw")
    assert page.locator("[role=alert]").count() == 1


def test_the_ruler_says_what_is_cut(page):
    ruler = page.locator("#ruler")
    expect(ruler).to_contain_text(" of 75 tokens")
    page.locator("#prompt textarea").fill("a cat on a red background " * 15)
    expect(ruler.locator("s")).to_contain_text("cat on a red background")
    unfold(page, "Long prompt, count token")
    page.get_by_label("window by window").click()
    expect(ruler).to_contain_text("of 150 tokens in 2 windows")
    assert ruler.locator("s").count() == 0


def test_a_count_token_is_uploaded_and_used(page, app, tiny_pipeline, tmp_path):
    from t2i_tools.counting.token import start_token

    start_token(tiny_pipeline, 3, "star").save(tmp_path / "three.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no token")
    unfold(page, "Long prompt, count token")
    upload = page.locator("#token-upload input, input[type=file][accept*='.safetensors']").first
    upload.set_input_files(tmp_path / "broken.safetensors")
    expect(page.locator("#token-message [role=alert]")).to_contain_text("broken.safetensors is damaged")
    upload.set_input_files(tmp_path / "three.safetensors")
    expect(page.locator("#token-message")).to_contain_text("Kept as three")
    generate(page, "{count} stars")
    done(page, "generate")
    settings = read_settings(app[1].paths(newest(app))[0])
    assert settings["prompt"] == "<count-3> three stars"
    assert settings["count_token"][0]["file"] == "three.safetensors"


def test_count_searches_and_keeps_a_token(page, app, shoot):
    open_tab(page, "Count")
    page.get_by_label("token by gradient", exact=True).check()
    slide(page, "Budget per image", 4)
    page.get_by_label("Keep the tokens of searches").check()
    unfold(page, "Size, steps, seed, model, judge")
    fill(page, "Steps", 2)
    page.locator("#count-run").click()
    done(page, "count")
    job = newest(app)
    rows = page.locator(".t2i-table:visible tbody tr")
    assert [row.split("\t")[0] for row in rows.all_inner_texts()] == ["token by gradient"]
    trials = job.result["images"][0]["steps"]
    expect(page.locator(".t2i-strip img")).to_have_count(trials)
    expect(page.locator("#count-charts circle")).to_have_count(2 * trials)  # counts and losses, the last one's as well
    expect(page.locator("#count-charts .t2i-target")).to_have_count(1)  # of the counts
    page.get_by_role("button", name="Compare with the plain image").click()
    wait_until(lambda: newest(app).number > job.number and not newest(app).open, every=0.1)
    compared = newest(app)
    assert [row["method"] for row in compared.result["images"]] == ["token", "plain", "best_of"]
    assert compared.result["images"][0] == job.result["images"][0]  # not made again
    expect(rows).to_have_count(3)
    (name,) = job.result["images"][0]["tokens"]
    expect(page.locator(f"text={name}").first).to_be_visible()
    assert name in app[1].registry.of(job.owner).tokens()
    shoot(page, "count")


def test_count_and_grid_say_which_words_the_model_does_not_know(page):
    open_tab(page, "Count")
    unfold(page, "Size, steps, seed, model, judge")
    choose(page, "Model", "bundled")
    page.locator("#count-prompt textarea").fill("{count} giraffes")
    expect(page.locator("#count-vocabulary")).to_contain_text("not trained on 'giraffes'")
    page.locator("#count-prompt textarea").fill("{count} cats")
    expect(page.locator("#count-vocabulary")).to_be_hidden()
    open_tab(page, "Grid")
    unfold(page, "Size, negative prompt, model, judges")
    choose(page, "Model", "bundled")
    page.get_by_label("Values down").fill("red, mauve")
    expect(page.locator("#grid-vocabulary")).to_contain_text("not trained on 'mauve'")


def test_the_prompt_of_a_count_follows_the_classes(page):
    open_tab(page, "Count")
    prompt = page.locator("#count-prompt textarea")
    expect(prompt).to_have_attribute("placeholder", "a photo of {count} cats")
    unfold(page, "Two classes at once")
    page.get_by_label("Of what else").fill("dog")
    page.get_by_label("Of what else").press("Enter")
    expect(prompt).to_have_attribute("placeholder", "a photo of {cat} cats and {dog} dogs")


def test_probe_gives_a_verdict_in_words(page, app, shoot):
    open_tab(page, "Probe")
    unfold(page, "Seeds, size, steps, model")
    fill(page, "Steps", 2)
    page.locator("#prompts textarea").fill("two cats\na red car")  # last: a tab that has just opened may undo it
    page.locator("#probe-run").click()
    done(page, "probe")
    word = newest(app).result["verdict"].partition(":")[0]
    expect(page.locator(".t2i-results:visible strong")).to_have_text(word)
    assert page.locator(".t2i-token").all_inner_texts()[:2] == ["two", "cats"]
    assert page.locator(".t2i-pads").first.inner_text() == "73 rows of padding"
    assert "[" in page.locator(".t2i-table:visible").inner_text()  # intervals
    shoot(page, "probe")


def test_grid_measures_each_cell(page, shoot):
    open_tab(page, "Grid")
    page.get_by_label("Values across").fill("1, 2")
    expect(page.locator("#grid-forecast")).to_contain_text("4 images")
    page.locator("#grid-run").click()
    done(page, "grid")
    cells = page.locator(".t2i-matrix button")
    expect(cells).to_have_count(4)
    expect(page.locator(".t2i-matrix thead th")).to_have_text(["colour \\ steps", "1", "2"])
    cells.nth(3).click()
    expect(page.locator("#grid-stage figcaption:visible")).to_contain_text("2; blue · 64 × 64 · cat: 3 asked, ")
    shoot(page, "grid")


def test_evaluate_shows_its_report(page, app, shoot, tmp_path):
    open_tab(page, "Evaluate")
    unfold(page, "Steps, judges, name")
    fill(page, "Steps", 1)
    page.get_by_label("Sizes").fill("")
    unfold(page, "My own prompts")
    rows = {"name": "own.csv", "mimeType": "text/csv", "buffer": b"prompt,class,count\ntwo cats,cat,2\na dog,dog,1\n"}
    page.locator("input[type=file][accept*='.csv']").set_input_files(rows)
    expect(page.get_by_role("row", name="own.csv")).to_be_visible()
    unfold(page, "Test split and protocol")
    page.get_by_label("test", exact=True).check()
    rule = json.dumps({"split": "test", "_note": "written before"}).encode()
    claim = {"name": "protocol.json", "mimeType": "application/json", "buffer": rule}
    page.locator("input[type=file][accept*='.json']:not([accept*='.csv'])").set_input_files(claim)
    expect(page.get_by_role("row", name="protocol.json")).to_be_visible()
    page.locator("#evaluate-run").click()
    done(page, "evaluate")
    report = page.frame_locator("iframe.t2i-report").locator("body")
    expect(report).to_contain_text("split test")
    assert newest(app).asked["protocol"]["split"] == "test"
    shoot(page, "evaluate")
    page.locator("#title").scroll_into_view_if_needed()
    open_tab(page, "My jobs")
    expect(page.locator("#jobs-ended article", has_text="Evaluate").first).to_be_visible()
    shoot(page, "jobs")


CONTROLS = "button, input, textarea, select, a[href], [role=slider], [role=listbox], [tabindex='0']"
MARK = """() => [...document.querySelectorAll(`CONTROLS`)].filter((one) => one.checkVisibility() && !one.disabled
    && one.type != 'file' && !(one.type == 'radio' && !one.checked)
    && one.getBoundingClientRect().width > 1 && !one.closest('[aria-hidden=true], .visually-hidden'))
    .map((one, i) => { one.dataset.k = i; return one.outerHTML.slice(0, 160) })"""


@pytest.mark.parametrize("tab", [TABS[0], *(pytest.param(tab, marks=pytest.mark.slow) for tab in TABS[1:])])
def test_everything_is_reached_by_keyboard(page, tab):
    """By Tab from the top, but for the other choices of a radio group, which arrow keys reach."""
    page.get_by_role("tab", name=tab).press("Enter")
    unfold_all(page)
    controls = page.evaluate(MARK.replace("CONTROLS", CONTROLS))
    assert len(controls) > 2
    page.evaluate("() => { document.activeElement.blur(); window.scrollTo(0, 0) }")
    reached = set()
    for _ in range(len(controls) + 30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => document.activeElement.dataset.k"))
    missed = [html for index, html in enumerate(controls) if str(index) not in reached]
    assert missed == []


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_axe_finds_nothing_serious_that_is_ours(browser, app, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = opened(browser, app, f"?__theme={scheme}", viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    found, checked = [], 0
    for tab in TABS:
        open_tab(page, tab)
        unfold_all(page)
        time.sleep(0.5)  # of fading in, which would count as low contrast
        result = axe.run(page).response
        checked += len(result["passes"])
        for violation in result["violations"]:
            if violation["impact"] in ("serious", "critical"):
                found += [(tab, violation["id"], node["html"][:160]) for node in violation["nodes"]]
    page.context.close()
    assert checked > 10 * len(TABS)
    assert [one for one in found if not gradios(one)] == []


def gradios(violation):
    """What lies in a component of Gradio's and can only be mended there."""
    return any(mark in violation[2] for mark in GRADIOS)


GRADIOS = ('aria-label="Empty value"',)  # the placeholder of an empty gallery or picture


def test_usable_on_a_phone(browser, app, shoot):
    page = opened(browser, app, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    generate(page)
    done(page, "generate")
    page.locator(".t2i-results img").first.wait_for()
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390
    prompt = page.locator("#prompt textarea").bounding_box()
    assert prompt["x"] >= 0 and prompt["x"] + prompt["width"] <= 390  # what is wider is cut and cannot be scrolled to
    image = page.locator(".t2i-results img").first.bounding_box()
    assert image["y"] < page.locator("text=Shape").first.bounding_box()["y"]  # the picture before the options
    shoot(page, "phone")
    page.context.close()


def test_dark(browser, app, shoot):
    page = opened(browser, app, viewport={"width": 1280, "height": 900}, color_scheme="dark")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(int(part) for part in background.strip("rgba()").split(",")[:3]) < 150
    shoot(page, "dark")
    page.context.close()


def test_nothing_is_fetched_from_elsewhere(browser, app):
    context, asked = browser.new_context(), []
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(app[0])
    page.locator("#generate-run").wait_for()
    assert [url for url in asked if not url.startswith((app[0].rstrip("/"), "data:", "blob:"))] == []
    context.close()
