"""Inputs in Chromium: sizes stay as typed, and what is wrong is said at its field, in whatever fold that is."""

import base64
import io

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from support.browsing import choose, done, fill, generate, newest, open_tab, opened, unfold

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=120_000)


def test_a_typed_size_is_made_as_typed(page, app):
    note, boxes = page.locator("#size-note"), [page.get_by_label(name, exact=True) for name in ("Width", "Height")]
    expect(note).to_contain_text("64 × 64 pixels, as the model was trained")
    for box, value in zip(boxes, ("96", "40"), strict=True):
        box.fill(value)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(note).to_contain_text("96 × 40 pixels; the model's own size is 64 × 64")
    expect(page.locator("#shape input:checked")).to_have_count(0)
    unfold(page, "Model, VAE, LoRA")
    page.get_by_label("Model", exact=True).click()
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")  # left without a choice
    choose(page, "Model", "bundled")
    expect(note).to_contain_text("96 × 40 pixels; the model's own size is 128 × 128")
    choose(page, "Model", "tiny")
    generate(page)
    done(page, "generate")
    with Image.open(app[1].paths(newest(app))[0]) as image:
        assert image.size == (96, 40)
    page.get_by_label("16:9").check()
    expect(boxes[0]).to_have_value("88")  # of as many pixels as 64 x 64, in multiples of 8
    expect(boxes[1]).to_have_value("48")


def test_what_is_wrong_is_said_at_its_field(page, app, shoot):
    before = app[1].jobs._value("SELECT count(*) FROM jobs")
    note = page.locator(".t2i-at-field")
    page.get_by_label("Width", exact=True).fill("-5")
    page.locator("#generate-run").click()
    expect(note).to_have_text("width '-5' is not a number of pixels: use a whole number, 1 or more")
    expect(page.get_by_label("Width", exact=True)).to_be_focused()
    assert page.get_by_label("Width", exact=True).get_attribute("aria-invalid") == "true"
    page.get_by_label("Width", exact=True).fill("64")
    expect(note).to_have_count(0)  # it goes with the first letter
    unfold(page, "Negative prompt, steps")
    fill(page, "Steps", "9999")
    unfold(page, "Negative prompt, steps")
    page.locator("#generate-run").click()
    expect(note).to_have_text("steps 9999: this server allows up to 150")
    expect(page.get_by_label("Steps", exact=True)).to_be_focused()  # in the fold that was closed
    assert page.locator("button.label-wrap.open:visible").count() == 1
    shoot(page, "error")
    fill(page, "Steps", "2")
    unfold(page, "Start from an image")
    text = {"name": "text.png", "mimeType": "image/png", "buffer": b"not an image"}
    page.locator("#generate-image input[type=file]").set_input_files(text)
    page.locator("#generate-image img").wait_for()
    page.locator("#generate-run").click()
    expect(note).to_contain_text("text.png")
    expect(page.locator("#generate-image .t2i-at-field")).to_have_count(1)
    assert app[1].jobs._value("SELECT count(*) FROM jobs") == before


def test_the_settings_of_a_strangers_image_keep_the_page_alive(page, app):
    buffer, about = io.BytesIO(), PngInfo()
    about.add_text("parameters", "two dogs\nSteps: 2, Sampler: DDIM, CFG scale: 3, Seed: 7, Size: 64x64, Model: v1-5")
    Image.new("RGB", (64, 64)).save(buffer, "PNG", pnginfo=about)
    file = {"name": "theirs.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    page.locator("input[type=file][accept*='.webp']").first.set_input_files(file)
    expect(page.locator("#prompt textarea")).to_have_value("two dogs")
    came = page.locator("#came-back")
    expect(came).to_contain_text("From theirs.png: prompt, size 64x64, seed 7, steps 2, guidance 3")
    expect(came).to_contain_text("model v1-5 is not here: the one that is chosen stays")
    page.locator("#generate-run").click()
    done(page, "generate")
    assert (newest(app).asked["prompt"], newest(app).asked["model"]) == ("two dogs", "tiny")


DROP = """([text, name]) => {
    const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type: "image/png" }));
    const over = new DragEvent("dragover", { bubbles: true, cancelable: true, dataTransfer: transfer });
    document.querySelector("#title").dispatchEvent(over);
    const drop = new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: transfer });
    document.querySelector("#title").dispatchEvent(drop);
    return over.defaultPrevented && drop.defaultPrevented;  // or the browser would open the file
}"""


def test_an_image_dropped_anywhere_brings_its_settings_back_and_is_counted_on_detect(page, app):
    buffer, about = io.BytesIO(), PngInfo()
    about.add_text("parameters", "three frogs\nSteps: 4, Seed: 9, Size: 64x64")
    Image.new("RGB", (64, 64)).save(buffer, "PNG", pnginfo=about)
    text = base64.b64encode(buffer.getvalue()).decode()
    expect(page.locator("[data-owner]")).to_be_visible()  # the page is at work
    open_tab(page, "Count")
    assert page.evaluate(DROP, [text, "dropped.png"])
    expect(page.locator("#prompt textarea")).to_have_value("three frogs")
    expect(page.locator("#came-back")).to_contain_text("From dropped.png: prompt, size 64x64, seed 9, steps 4")
    open_tab(page, "Detect")
    assert page.evaluate(DROP, [text, "dropped.png"])
    expect(page.locator("#detect-images a[href$='dropped.png']")).to_be_visible()
    page.keyboard.press("Control+Enter")
    done(page, "detect")
    expect(page.locator("#detect-stage figcaption")).to_contain_text("64 × 64")
    assert newest(app).kind == "detect"


@pytest.mark.slow
def test_what_the_kit_knows_is_said_and_used(page):
    unfold(page, "Model, VAE, LoRA")
    choose(page, "Model", "bundled")
    for name, value in (("Width", "256"), ("Height", "128")):
        page.get_by_label(name, exact=True).fill(value)
    expect(page.locator("#size-note")).to_contain_text("two passes drew ")
    page.locator("#size-note").get_by_role("button", name="Use it").click()
    unfold(page, "Other sizes")
    expect(page.get_by_label("Two passes")).to_be_checked()
    page.locator("#prompt textarea").fill("a cat on a red background " * 15)
    page.locator("#ruler").get_by_role("button", name="Read all of it").click()
    expect(page.locator("#ruler")).to_contain_text("in 2 windows")
    page.locator("#prompt textarea").fill("seven apples on a table")
    page.locator("#ruler").get_by_role("button", name="Make it exactly seven").click()
    expect(page.locator("#count-prompt textarea")).to_have_value("{count} apples on a table")
    expect(page.locator("input[aria-label='number input for How many']")).to_have_value("7")


@pytest.mark.slow
def test_the_page_on_the_api_opens_by_its_address(browser, app):
    page = opened(browser, app, "?view=api")
    expect(page.locator(".api-docs")).to_contain_text("Denoising steps per image")
    page.context.close()


def test_errors_of_gradios_own_are_shown(page):
    """A model that goes from the server while a page still offers it."""
    page.route("**/queue/join*", lambda route: route.continue_(post_data=broken(route.request.post_data)))
    page.locator("#generate-run").click()
    expect(page.locator(".toast-body")).to_contain_text("is not in the list of choices")


def broken(data):
    """The same call with a choice that there is not."""
    return data.replace('"tiny"', '"gone"')
