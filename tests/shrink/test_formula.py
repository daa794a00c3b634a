"""The formula of deep shrink."""

import pytest

from t2i_tools.errors import InputError
from t2i_tools.shrink.formula import check_level, check_share, distinct, halved, place, small_side, small_steps


def test_how_many_steps_are_small():
    assert [small_steps(0.5, steps) for steps in (1, 2, 5, 10, 50)] == [1, 1, 3, 5, 25]
    assert [small_steps(share, 10) for share in (0, 0.05, 0.2, 0.35, 1)] == [0, 1, 2, 4, 10]
    assert small_steps(0.55, 20) == 11  # 11.000000000000002 as floats multiply


def test_a_timestep_has_its_place_whatever_its_unit():
    thousand, one, log_sigma = [999, 749, 499, 249], [0.0, 0.25, 0.5, 0.75], [1.2, 0.4, -0.3, -1.1]
    for timesteps in (thousand, one, log_sigma):
        assert [place(time, timesteps) for time in timesteps] == [0, 1, 2, 3]
    assert place(750.5, thousand) == 1  # as bfloat16 or a scheduler's own rounding leaves it
    assert distinct([999, 749, 749, 499, 499, 249, 249]) == thousand


@pytest.mark.parametrize(
    ("side", "level", "deeper", "small"),
    [
        (64, 1, 2, 32),  # native: as without
        (48, 1, 2, 24),
        (33, 1, 2, 17),  # below it, also where it does not divide
        (96, 1, 2, 32),
        (128, 1, 2, 32),
        (66, 1, 2, 32),
        (65, 1, 2, 32),
        (192, 2, 1, 16),
        (192, 3, 0, 8),
    ],
)
def test_deep_maps_have_the_native_size(side, level, deeper, small):
    assert small_side(side, 64, level, deeper) == small


@pytest.mark.parametrize("deeper", [0, 1, 2, 3])
def test_small_maps_never_grow_and_can_be_halved(deeper):
    for native in range(1, 70):
        for side in range(1, 200, 3):
            for level in (1, 2):
                small, plain = small_side(side, native, level, deeper), halved(side, level)
                assert 1 <= small <= plain
                assert small == plain or small % 2**deeper == 0
                if side <= native:
                    assert small == plain


def test_arguments_out_of_range():
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="use 0 .* to 1"):
            check_share(share)
    for level in (0, 4, -1):
        with pytest.raises(InputError, match="has the downsamplers 1 to 3"):
            check_level(level, 3)
