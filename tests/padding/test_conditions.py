import numpy as np
import pytest
from support.shared import shared

from t2i_tools.errors import InputError
from t2i_tools.padding.conditions import Rows, condition_name, kept_rows, parse_condition, swapped_rows, text_rows


def rows(letters):
    return Rows(*(np.array([letter in kinds for letter in letters]) for kinds in ("bwe", "e", ".")))


ROWS = rows("bwwe......")


def kept(keep):
    return "".join(letter if own else "-" for letter, own in zip("bwwe......", kept_rows(keep, ROWS), strict=True))


@pytest.mark.parametrize(
    ("keep", "shown"),
    [
        ("full", "bwwe......"),
        ("prompt", "bwwe------"),
        ("pads", "----......"),
        ("clean", "----------"),
        ("eos", "---e------"),
        ("swapped", "----------"),
        ("noise", "----------"),
        (("pads", 0, 3), "----..----"),
        (("pads", 2, 3), "--------.."),
        (("pads", 0, 4), "----..----"),
        (("pads", 3, 4), "---------."),
        (slice(1, 3), "-ww-------"),
        (slice(-2, None), "--------.."),
    ],
)
def test_rows_that_stay(keep, shown):
    assert kept(keep) == shown


def test_random_pads_are_pads_and_repeat():
    drawn = kept_rows(("random", 3, 1), ROWS)
    assert drawn.sum() == 3
    assert (drawn <= ROWS.pads).all()
    assert (kept_rows(("random", 3, 1), ROWS) == drawn).all()
    assert any((kept_rows(("random", 3, seed), ROWS) != drawn).any() for seed in range(5))
    assert kept_rows(("random", 99, 0), ROWS).sum() == 6


def test_parts_share_all_pads():
    assert (sum(kept_rows(("pads", part, 5), ROWS).astype(int) for part in range(5)) == ROWS.pads).all()


def test_swapped_rows_are_filling_for_both():
    assert swapped_rows(ROWS, rows("bwwwwe....")).tolist() == [False] * 6 + [True] * 4
    assert swapped_rows(ROWS, rows("bwwwwe.")).tolist() == [False] * 6 + [True] + [False] * 3


@pytest.mark.parametrize(
    "keep", ["words", ("pads", 5, 5), ("pads", -1, 5), ("random", 0, 0), ("random", 2), 3, ("pads", "0", 5), None]
)
def test_what_is_no_condition(keep):
    with pytest.raises(InputError, match="unknown condition"):
        kept_rows(keep, ROWS)


TYPED = {
    "prompt": ("prompt", "prompt"),
    "pads:1/5": (("pads", 0, 5), "pads 1 of 5"),
    "random:10": (("random", 10, 0), "random 10"),
    "random:10:3": (("random", 10, 3), "random 10 seed 3"),
    "rows:0-5": (slice(0, 5), "rows 0:5"),
    "rows:-5": (slice(None, 5), "rows :5"),
    "rows:5-": (slice(5, None), "rows 5:"),
}


def test_typed_conditions():
    for text, (keep, name) in TYPED.items():
        assert parse_condition(text) == keep
        assert condition_name(keep) == name
    for text in ("words", "pads:0/5", "pads:6/5", "random:x", "rows:a-b"):
        with pytest.raises(InputError, match="unknown condition"):
            parse_condition(text)


def test_rows_of_pipelines():
    """SD3: two CLIPs share 77 rows, T5 follows; Flux: T5's rows alone; SDXL: both encoders' are the same rows."""
    sd3 = text_rows(shared("stable_diffusion_3"), "two cats")
    assert len(sd3) == 77 + 256
    assert np.flatnonzero(sd3.prompt).tolist() == [0, 1, 2, 3, 77, 78, 79]
    assert np.flatnonzero(sd3.eos).tolist() == [3, 79]
    assert (sd3.pads == ~sd3.prompt).all()
    assert np.flatnonzero(text_rows(shared("flux"), "two cats").prompt).tolist() == [0, 1, 2]
    assert len(text_rows(shared("stable_diffusion_xl"), "two cats")) == 77
