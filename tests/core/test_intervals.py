"A number with its interval: what is refused, how it compares, prints and is stored"

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from denoise_study.core import Interval, interval_cells, interval_columns, interval_values


def some(value=0.5, low=0.4, high=0.6, n=200, unit="images", level=0.95):
    return Interval(value, low, high, n, unit, level)


@pytest.mark.parametrize(
    "wrong, words",
    [
        (dict(value=math.nan), "finite"),
        (dict(high=math.inf), "finite"),
        (dict(low=0.7), "0.7 is above 0.6; swap"),
        (dict(n=0), "n: a whole number"),
        (dict(n=2.5), "n: a whole number"),
        (dict(unit=""), "what the interval is over"),
        (dict(level=1.0), "level: a coverage"),
        (dict(level=95), "level: a coverage"),
    ],
)
def test_what_is_no_interval_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        some(**wrong)


def test_estimate_outside_of_its_interval_is_kept():
    "Resamples of a biased statistic may lie on one side of it"
    assert some(value=0.3).value == 0.3
    assert some(value=0.0, low=0.0, high=0.0).low == 0.0


def test_numbers_of_other_libraries_become_plain():
    i = Interval(np.float32(0.5), torch.tensor(0.25), np.float64(0.75), np.int64(8), "seeds")
    assert [type(v) for v in i.to_dict().values()] == [float, float, float, int, str, float]
    assert i == Interval(0.5, 0.25, 0.75, 8, "seeds")


@pytest.mark.parametrize(
    "spec, text",
    [
        ("", "0.512 [0.48, 0.55]"),
        ("+.2f", "+0.51 [+0.48, +0.55]"),
        (".1%", "51.2% [48.0%, 55.0%]"),
    ],
)
def test_format(spec, text):
    assert format(some(0.5123, 0.48, 0.55), spec) == text


def test_print_says_what_it_is_over():
    assert str(some()) == "0.5 [0.4, 0.6]"
    assert repr(some(level=0.9)) == "0.5 [0.4, 0.6] (90% over 200 images)"
    assert str(Interval.of_formula(0.26)) == "0.26"


@pytest.mark.parametrize(
    "x, above, below",
    [
        (0.3, True, False),
        (0.4, False, False),  # the end itself: can't tell
        (0.5, False, False),
        (0.6, False, False),
        (0.7, False, True),
        (some(0.3, 0.2, 0.39), True, False),
        (some(0.3, 0.2, 0.4), False, False),
        (some(0.8, 0.61, 0.9), False, True),
    ],
)
def test_above_and_below(x, above, below):
    assert (some().above(x), some().below(x)) == (above, below)


@pytest.mark.parametrize(
    "margin, of, inside",
    [
        (0.6, 0.0, True),
        (0.59, 0.0, False),
        (0.11, 0.5, True),
        (0.09, 0.5, False),
        (0.15, 0.3, False),
        (0.15, 0.7, False),
    ],
)
def test_within(margin, of, inside):
    assert some().within(margin, of) is inside


@pytest.mark.parametrize("margin", [0.0, -0.1, math.nan])
def test_margin_is_positive(margin):
    with pytest.raises(ValueError, match="margin: a (positive|finite) number"):
        some().within(margin)


def test_contains():
    assert some().contains(0.4) and some().contains(0.6)
    assert not some().contains(0.39) and not some().contains(0.61)


def test_map_swaps_the_ends_of_a_falling_function():
    i = some().map(lambda v: -10 * v)
    assert (i.value, i.low, i.high, i.n, i.unit) == (-5.0, -6.0, -4.0, 200, "images")


@pytest.mark.parametrize(
    "a, b",
    [
        (some(), some(0.3, 0.2, 0.39)),
        (some(), some(0.45, 0.3, 0.55)),
        (some(), some(0.8, 0.7, 0.9)),
    ],
)
def test_difference_excludes_zero_where_they_do_not_touch(a, b):
    assert a.minus(b).contains(0) is not (a.above(b) or a.below(b))
    assert a.minus(b).value == pytest.approx(a.value - b.value)


def test_difference_keeps_what_it_is_over():
    mixed = some().minus(some(n=8, unit="seeds", level=0.9))
    assert (mixed.n, mixed.unit, mixed.level) == (8, "images and seeds", 0.9)
    shifted = some().minus(Interval.of_formula(0.1))
    assert (shifted.n, shifted.unit) == (200, "images") and shifted.low == pytest.approx(0.3)
    flipped = Interval.of_formula(1.0).minus(some(low=0.3))
    assert (flipped.low, flipped.high) == pytest.approx((0.4, 0.7)) and flipped.unit == "images"


def test_ratio_is_the_widest_that_both_allow():
    a, b = some(0.6, 0.5, 0.7), some(0.3, 0.2, 0.4, n=8, unit="seeds")
    ratio = a.ratio_to(b)
    ends = ratio.value, ratio.low, ratio.high
    assert ends == pytest.approx((2, 1.25, 3.5))
    assert (ratio.n, ratio.unit) == (8, "images and seeds")


def test_widened_about_the_number():
    i = some(0.5, 0.4, 0.7).widened(2)
    assert (i.value, i.low, i.high) == pytest.approx((0.5, 0.3, 0.9))
    assert some().widened(1) == some()


def test_record_round_trip():
    for i in (
        some(),
        some(unit="networks x 1000 images", n=5, level=0.9),
        Interval.of_formula(0.26),
    ):
        assert Interval.from_dict(json.loads(json.dumps(i.to_dict()))) == i
    assert list(some().to_dict()) == ["value", "low", "high", "n", "unit", "level"]


def test_record_of_other_origin():
    old = dict(value=3.1, low=2.8, high=3.5, bias=0.1, n_boot=100)
    with pytest.raises(ValueError, match="lacks n, unit; it has value, low, high, bias"):
        Interval.from_dict(old)
    assert Interval.from_dict(old, n=500, unit="images") == some(3.1, 2.8, 3.5, 500)
    # the record knows
    assert Interval.from_dict(dict(old, n=9, unit="seeds"), n=500, unit="images").n == 9


def test_row_round_trip():
    row = some().columns("frechet")
    assert row == dict(frechet=0.5, frechet_low=0.4, frechet_high=0.6, frechet_n=200)
    assert Interval.of(row, "frechet") == some()
    assert Interval.of(pd.DataFrame([row, row]).iloc[1], "frechet", level=0.9) == some(level=0.9)


@pytest.mark.parametrize("ends", [None, "", "boot_"])
def test_cells_are_read_back_from_their_columns(ends):
    cells = interval_cells(some(), "frechet", ends)
    assert tuple(cells) == interval_columns("frechet", ends)
    assert Interval.of(cells, "frechet", ends, n=200) == some()
    assert interval_values(cells, "frechet", ends) == [0.5, 0.4, 0.6]
    empty = interval_cells(None, "frechet", ends)
    assert list(empty) == list(cells) and Interval.of(empty, "frechet", ends, n=200) is None


def test_row_of_other_origin():
    row = dict(rank=0.5, low=0.4, high=0.6, n=30)
    assert Interval.of(row, "rank", ends="", unit="pairs") == some(n=30, unit="pairs")
    assert (
        Interval.of(dict(a_value=0.5, a_low=0.4, a_high=0.6), "a_value", ends="a_", n=200) == some()
    )
    with pytest.raises(KeyError, match="lacks frechet_n; it has frechet"):
        Interval.of(dict(frechet=0.5, frechet_low=0.4, frechet_high=0.6), "frechet")


@pytest.mark.parametrize("empty", [None, math.nan, np.nan])
def test_empty_cell_is_not_measured(empty):
    row = some().columns("x")
    assert Interval.of(dict(row, x=empty), "x") is None
    assert Interval.of(dict(row, x_low=empty), "x") is None
    with pytest.raises(KeyError, match="lacks y"):
        Interval.of(row, "y", n=1)
