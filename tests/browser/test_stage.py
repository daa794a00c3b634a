"""The stage in Chromium: one large image in whole multiples, with what was asked and counted, enlarged and compared."""

import pytest
from support.browsing import choose, done, fill, generate, open_tab, opened, slide, unfold
from support.slow_steps import slow_steps

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=120_000)
WIDTHS = "images => images.filter(one => one.checkVisibility()).map(one => [one.clientWidth, one.clientHeight])"


def test_whole_multiples_choice_and_zoom(page, shoot):
    slide(page, "Images", 2)
    generate(page)
    done(page, "generate")
    shown = page.locator("#generate-stage .t2i-frame img")
    expect(shown.first).to_be_visible()
    ((width, height),) = shown.evaluate_all(WIDTHS)
    assert width == height and width >= 320 and width % 64 == 0
    expect(shown.first).to_have_css("image-rendering", "pixelated")
    first, second = page.locator("#generate-stage [data-act=choose]").all()
    second.click()
    expect(second).to_have_attribute("aria-pressed", "true")
    expect(first).to_have_attribute("aria-pressed", "false")
    expect(shown.nth(1)).to_be_visible()
    expect(shown.nth(0)).to_be_hidden()
    assert shown.nth(1).get_attribute("src") in page.locator(".t2i-download").get_attribute("href")
    page.locator("#generate-stage [data-act=zoom]:visible").press("Enter")
    ((larger, _),) = page.locator("dialog img").evaluate_all(WIDTHS)
    assert larger > width and larger % 64 == 0
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    shoot(page, "stage")


def test_asked_and_counted_with_boxes_that_can_be_shown(page, shoot):
    unfold(page, "Model, VAE, LoRA")
    choose(page, "Model", "bundled")
    generate(page, "seven apples on a blue background", steps=4)
    done(page, "generate")
    caption = page.locator("#generate-stage figcaption")
    expect(caption).to_contain_text("128 × 128 · apple: 7 asked, ")
    expect(caption).to_contain_text(" counted")
    if page.locator("#generate-stage rect").count():  # four steps draw few apples
        boxes = page.locator("#generate-stage svg")
        expect(boxes).to_be_hidden()
        page.locator("#generate-stage").get_by_label("Boxes").check()
        expect(boxes).to_be_visible()
    shoot(page, "counted")


def test_two_that_are_compared_stand_under_a_slider(page):
    unfold(page, "Other sizes")
    page.get_by_label("side by side").check()
    generate(page)
    done(page, "generate")
    after = page.locator("#generate-stage .t2i-after")
    expect(after).to_have_css("clip-path", "inset(0px 0px 0px 50%)")
    page.locator("#generate-stage input[type=range]").fill("20")
    expect(after).to_have_css("clip-path", "inset(0px 0px 0px 20%)")
    expect(page.locator("#generate-stage figcaption")).to_have_count(2)


def test_the_last_result_stays_until_the_next_is_seen(page, app):
    generate(page)
    done(page, "generate")
    image = page.locator("#generate-stage .t2i-frame img")
    expect(image).to_be_visible()
    size = image.evaluate_all(WIDTHS)
    with slow_steps(app[1], 1.5):
        fill(page, "Steps", 4)
        page.locator("#generate-run").click()
        page.locator("#generate-cancel:enabled").wait_for()
        assert image.count() == 1  # no step is done yet
        preview = page.locator("#generate-status .t2i-frame img")
        expect(preview).to_be_visible()
        expect(image).to_have_count(0)
        assert preview.evaluate_all(WIDTHS) == size
        page.locator("#generate-cancel").click()
        done(page, "generate", "Cancelled")
    expect(image).to_be_visible()  # what was made before is not lost with it


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1920, "dark")])
def test_the_page_is_as_wide_as_it_can_use(browser, app, shoot, width, scheme):
    page = opened(browser, app, viewport={"width": width, "height": 1000}, color_scheme=scheme)
    generate(page)
    done(page, "generate")
    image = page.locator("#generate-stage .t2i-frame img")
    expect(image).to_be_visible()
    box, main = image.bounding_box(), page.locator("main").first.bounding_box()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert box["width"] % 64 == 0 and box["width"] >= (256 if width < 500 else 512)
    assert main["width"] >= min(width, 1600) - 40
    shoot(page, f"stage-{width}-{scheme}")
    open_tab(page, "Count")
    shoot(page, f"count-{width}-{scheme}")
    page.context.close()
