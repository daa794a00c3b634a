"""What axe finds in Chromium where results are shown: nothing serious that is ours to mend."""

import time

import pytest
from PIL import Image
from support.browsing import open_tab, opened
from support.waiting import wait_until

from t2i_tools.ui.identity import COOKIE
from t2i_tools.ui.uploads import keep_image

expect = pytest.importorskip("playwright.sync_api").expect
JOBS = {
    "generate": {"prompt": "two cats", "steps": 1},
    "count": {"method": "bisection", "budget": 2, "steps": 1, "keep_tokens": True},
    "probe": {"prompts": ["two cats", "a dog"], "steps": 1},
    "grid": {"prompt": "two cats", "axes": ["steps=1,2"], "label": "cat"},
    "evaluate": {"prompts": [{"prompt": "two cats", "label": "cat", "count": 2}], "steps": 1},
    "detect": {},
}


def serious(page):
    """(rule, where) of each violation that is serious or critical."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    time.sleep(0.5)  # of fading in, which would count as low contrast
    violations = axe.run(page).response["violations"]
    grave = [one for one in violations if one["impact"] in ("serious", "critical")]
    return [(one["id"], node["html"][:160]) for one in grave for node in one["nodes"]]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_results_of_every_kind(browser, app, tmp_path, scheme, shoot):
    page = opened(browser, app, f"?__theme={scheme}", viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    (secret,) = [one["value"] for one in page.context.cookies() if one["name"] == COOKIE]
    Image.new("RGB", (64, 64)).save(tmp_path / "image.png")
    values = JOBS | {"detect": {"images": [keep_image(app[1], tmp_path / "image.png")]}}
    jobs = [app[1].submit(f"browser {secret}", kind, given) for kind, given in values.items()]
    wait_until(lambda: not any(app[1].jobs.get(job.id).open for job in jobs), every=0.1)
    assert [app[1].jobs.get(job.id).state for job in jobs] == ["done"] * len(jobs)
    page.reload()
    found = {}
    for kind in JOBS:
        open_tab(page, kind.title())
        expect(page.locator(f"#{kind}-actions")).to_contain_text("Delete")
        found[kind] = serious(page)
        shoot(page, f"axe-{kind}-{scheme}")
    open_tab(page, "My jobs")
    found["jobs"] = serious(page)
    page.context.close()
    assert {kind: grave for kind, grave in found.items() if grave} == {}


def test_a_box_that_holds_a_file_can_be_reached_and_filled_again(page, tmp_path):
    for name in ("first", "second"):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{name}.png")
    open_tab(page, "Detect")
    box = page.locator("#detect-images")
    box.locator("input[type=file]").set_input_files(tmp_path / "first.png")
    again = box.get_by_role("button", name="Choose files", exact=True)
    expect(again).to_be_visible()
    assert serious(page) == []
    with page.expect_file_chooser() as choosing:
        again.press("Enter")
    choosing.value.set_files(tmp_path / "second.png")
    expect(box.locator("a[href$='second.png']")).to_be_visible()
