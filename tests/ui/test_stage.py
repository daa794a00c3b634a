"""The stage: what a prompt asks for and what is counted stands in the caption, and nothing of a user's is markup."""

import re

import pytest
from PIL import Image

from t2i_tools.ui.objects import asked_counts, count_objects
from t2i_tools.ui.stage import Figure, preview_html, stage_html


@pytest.fixture
def figure(tmp_path):
    """figure(name, size, objects) -> one on disk."""

    def save(name, size=(128, 64), objects=()):
        Image.new("RGB", size).save(tmp_path / name)
        return Figure(tmp_path / name, f"seed of {name}", objects)

    return save


@pytest.mark.parametrize(
    ("prompt", "counts"),
    [
        ("seven apples on a blue background", {"apple": 7}),
        ("Two cats, 12 dogs and a fish", {"cat": 2, "dog": 12, "fish": 1}),
        ("<count-3> three stars", {"star": 3}),
        ("two cats at the top and a cat at the left", {"cat": 3}),
        ("twenty giraffes", {}),
        ("the apples of my eye, catalogue 3", {}),
    ],
)
def test_what_a_prompt_asks_for(prompt, counts):
    assert asked_counts(prompt) == counts


def test_objects_are_counted_with_their_boxes():
    from t2i_tools.bundled.scenes import scene

    drawn = scene(3, kind="counts", label="star", count=4)
    (record,) = count_objects(Image.fromarray(drawn.image), {"star": 5})
    assert (record["asked"], record["counted"]) == (5, 4)
    for box in drawn.boxes:
        assert any(max(abs(a - b) for a, b in zip(box, found, strict=True)) < 8 for found in record["boxes"])


def test_a_caption_says_what_was_asked_and_counted(figure):
    apples = {"label": "apple", "asked": 7, "counted": 6, "boxes": [[0, 0, 10, 20]]}
    html = stage_html([figure("one.png", objects=[apples])])
    assert "seed of one.png · 128 × 64 · apple: 7 asked, <b class='t2i-wrong'>6 counted</b>" in html
    assert "<rect x='0' y='0' width='10' height='20'/>" in html and "viewBox='0 0 128 64'" in html
    assert "data-act='boxes'" in html and "--w:128px;--ratio:2.000000" in html
    right = stage_html([figure("two.png", objects=[{**apples, "counted": 7, "boxes": []}])])
    assert "t2i-right" in right and "data-act='boxes'" not in right


def test_the_first_is_large_and_all_can_be_chosen(figure):
    html = stage_html([figure("a.png"), figure("b.png", (64, 64)), figure("c.png")])
    assert re.findall(r"<figure( hidden)?>", html) == ["", " hidden", " hidden"]
    assert html.count("data-act='choose'") == 3 and html.count("aria-pressed='true'") == 1
    assert "data-act='choose'" not in stage_html([figure("a.png")])
    assert stage_html([]) == ""


def test_two_of_one_size_are_compared_under_a_slider(figure):
    pair = [figure("a.png"), figure("b.png")]
    html = stage_html(pair, compare=True)
    assert "type='range'" in html and html.count("<figcaption>") == 2
    assert "type='range'" not in stage_html(pair)
    assert "type='range'" not in stage_html([pair[0], figure("c.png", (64, 64))], compare=True)


def test_small_images_are_crisp_and_large_ones_smooth(figure):
    sizes = {"t2i-small": (128, 128), "t2i-medium": (512, 256), "t2i-large": (1024, 64)}
    for kind, size in sizes.items():
        assert f"<img class='{kind}'" in stage_html([figure(f"{kind}.png", size)])
        assert f"<img class='{kind}'" in preview_html("data:,", size)


def test_names_are_escaped(figure):
    one = figure("it's & that.png")
    html = stage_html([Figure(one.path, "<script>'\"")])
    assert "<script>" not in html and "it's" not in html
    assert "gradio_api/file=" in html and "it%27s%20%26%20that.png" in html
