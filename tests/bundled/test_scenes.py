import re
import zlib
from itertools import combinations

import numpy as np
import pytest
from support.growth import cpu_seconds

from t2i_tools.bundled.scenes import (
    COLOURS,
    DEV_LABELS,
    LABELS,
    TEST_LABELS,
    held_out,
    long_caption,
    place_of,
    plural,
    scene,
)
from t2i_tools.images.number_words import number_word


@pytest.fixture(scope="module")
def scenes():
    return [scene(seed) for seed in range(400)]


def test_a_seed_gives_the_same_scene_and_splits_share_none():
    again, other = scene(5), scene(5, split="test")
    assert again.caption == scene(5).caption
    assert np.array_equal(again.image, scene(5).image)
    assert not np.array_equal(again.image, other.image)


def test_no_objects_overlap_and_all_lie_inside(scenes):
    for s in scenes:
        assert s.boxes.shape == (len(s.labels), 4)
        assert s.boxes.min() >= 0 and s.boxes.max() <= 128
        for a, b in combinations(s.boxes, 2):
            assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


def test_every_box_is_tight_around_what_differs_from_the_background():
    s = scene(3, kind="counts", label="apple", count=1, colour="white")
    left, top, right, bottom = s.boxes[0].astype(int)
    shade = np.abs(s.image.astype(int) - np.median(s.image, axis=(0, 1))).max(axis=-1) > 60
    rows, columns = np.where(shade)
    assert abs(rows.min() - top) <= 2 and abs(rows.max() + 1 - bottom) <= 2
    assert abs(columns.min() - left) <= 2 and abs(columns.max() + 1 - right) <= 2


def test_captions_tell_the_truth(scenes):
    for s in scenes:
        if s.kind == "counts":
            label, n = s.labels[0], len(s.labels)
            word = label if n == 1 else plural(label)
            assert re.search(rf"\b({number_word(n)}|{n}|an?|some|many) {word}\b", s.caption), s.caption
        if s.kind == "layouts":
            for label, place in zip(s.labels, s.places, strict=True):
                assert f"{label} {place}" in s.caption
        named = [colour for colour in COLOURS if f" {colour} background" in s.caption]
        assert named in ([], [s.colour])


def test_places_agree_with_the_boxes():
    for seed in range(50):
        s = scene(seed, kind="layouts", count=4)
        for box, place in zip(s.boxes, s.places, strict=True):
            row, column = place_of(box, (128, 128))
            assert all(part in place for part in (row, column))


def test_a_long_caption_names_every_object():
    s = scene(0, kind="layouts", count=12)
    assert long_caption(s).count(" is ") == 13
    assert s.colour in long_caption(s)


def test_training_never_shows_what_is_held_out(scenes):
    assert not any(held_out(label, s.colour) for s in scenes for label in s.labels)
    assert sum(held_out(label, colour) for label in LABELS for colour in COLOURS) == len(LABELS)
    assert any(held_out(label, s.colour) for s in (scene(i, split="test") for i in range(200)) for label in s.labels)
    assert "a picture of" in scene(1, split="test").caption
    assert not any("a picture of" in s.caption and "with a" in s.caption for s in scenes)
    assert set(DEV_LABELS) | set(TEST_LABELS) == set(LABELS) and not set(DEV_LABELS) & set(TEST_LABELS)


def test_small_counts_are_likelier(scenes):
    counts = [len(s.labels) for s in scenes if s.kind == "counts"]
    assert sum(n <= 3 for n in counts) > 2 * sum(n >= 10 for n in counts)
    assert max(counts) == 12 and min(counts) == 1


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (256, 256), (128, 384)])
def test_other_sizes_keep_or_scale_the_objects(size):
    fixed = scene(1, size=size, kind="counts", count=2)
    assert fixed.image.shape == (*size, 3)
    if size == (256, 256):
        scaled = scene(1, size=size, kind="counts", count=2, objects="scaled")
        widths = [np.ptp(s.boxes[:, ::2], axis=1).max() for s in (fixed, scaled)]
        assert widths[1] > 1.5 * widths[0]


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="do not fit"):
        scene(0, size=(32, 32), kind="counts", count=12)


def test_a_scene_takes_about_five_milliseconds(scenes):
    assert cpu_seconds(lambda: [scene(seed) for seed in range(50)]) / 50 < 0.03


def test_the_first_edition_stays_as_it_is_to_the_pixel():
    drawn = [scene(seed, split=split) for split in ("train", "dev", "test") for seed in range(40)]
    pixels = zlib.crc32(b"".join(s.image.tobytes() for s in drawn))
    texts = zlib.crc32("\n".join(s.caption for s in drawn).encode())
    assert (pixels, texts) == (2727863092, 1463198604)


@pytest.fixture(scope="module")
def second():
    return [scene(seed, edition=2) for seed in range(400)]


def least_distance(s):
    """The least distance in pixels between two boxes or a box and the border, along the farther axis."""
    border = [side for left, top, right, bottom in s.boxes for side in (left, top, 128 - right, 128 - bottom)]
    apart = [max(max(a[i], b[i]) - min(a[i + 2], b[i + 2]) for i in (0, 1)) for a, b in combinations(s.boxes, 2)]
    return min([*border, *apart])


def test_the_second_edition_spreads_objects_evenly(scenes, second):
    for counts in ((1,), (2, 3), (4, 5, 6), (7, 8, 9)):
        means = [
            np.mean([least_distance(s) for s in drawn if s.kind == "counts" and len(s.labels) in counts])
            for drawn in (scenes, second)
        ]
        assert means[1] > means[0] + 2, counts
    for s in second:
        assert s.boxes.min() >= 0 and s.boxes.max() <= 128
        assert all(
            max(max(a[i], b[i]) - min(a[i + 2], b[i + 2]) for i in (0, 1)) >= 0 for a, b in combinations(s.boxes, 2)
        )


def test_the_second_edition_says_one_apple_beside_an_apple_and_1_apple(second):
    single = [s for s in second if s.kind == "counts" and len(s.labels) == 1]
    said = [re.search(r"\b(one|an?|1) (?!.* background with)", s.caption.lower())[1] for s in single]
    for word in ("one", "1"):
        assert said.count(word) > len(single) / 10
    assert said.count("a") + said.count("an") > len(single) / 5


def test_the_second_edition_has_a_newcomers_wordings_and_tells_the_truth(second):
    captions = [s.caption for s in second]
    for pattern in (
        r"^Three \w+",
        r"\.$",
        r"^\d+ \w+",
        r", \w+ background",
        r"^[Aa]n? \w+ background with",
        "^[Aa] photo of",
    ):
        assert sum(bool(re.search(pattern, text)) for text in captions) >= 3, pattern
    assert not any(re.search("[Aa] orange|[Aa]n [^aou]", text) for text in captions)
    for s in second:
        text = s.caption.lower()
        if s.kind == "counts":
            label, n = s.labels[0], len(s.labels)
            assert re.search(rf"\b({number_word(n)}|{n}|an?|some|many) {label if n == 1 else plural(label)}\b", text), (
                text
            )
        named = [colour for colour in COLOURS if f"{colour} background" in text]
        assert named in ([], [s.colour])
        assert not (text.startswith("a picture of") and re.search(r"\w with an? \w+ background", text)), (
            "the test's wording"
        )
        assert not any(held_out(label, s.colour) for label in s.labels)
    assert scene(3, edition=2, split="test").caption.lower().startswith("a picture of")


def test_an_unknown_edition_is_refused():
    with pytest.raises(ValueError, match="edition"):
        scene(0, edition=3)
