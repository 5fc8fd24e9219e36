"One rule for what becomes of a claim, and one look for each verdict"

import math
import re
from itertools import combinations, product

import pytest

from denoise_study.core import check_terms, Interval, Learned, RELATIONS, Verdict, verdict
from denoise_study.core import verdict_css, weakest

V = Verdict
LEARNED, NOT = Learned("net", "share", 0.95, 0.9, 4000), Learned("net", "share", 0.45, 0.9, 100)
EQUAL = dict(relation="equal", margin=0.2)
WORDS = [
    "holds",
    "holds for the control as well",
    "does not hold",
    "smaller than claimed",
    "undecided",
    "not learned",
    "not measured",
]


def i(low, high):
    return Interval((low + high) / 2, low, high, 100, "images")


@pytest.mark.parametrize(
    "effect, terms, expected",
    [
        # nothing stands beside it
        (i(0.1, 0.3), {}, V.HOLDS),
        (i(-0.3, -0.1), {}, V.FAILS),
        (i(-0.1, 0.3), {}, V.UNDECIDED),
        (i(0.0, 0.3), {}, V.UNDECIDED),  # the end touches the threshold
        (i(-0.3, -0.1), dict(relation="below"), V.HOLDS),
        (i(0.1, 0.3), dict(relation="below"), V.FAILS),
        (i(-0.1, 0.3), dict(relation="below"), V.UNDECIDED),
        (None, {}, V.NOT_MEASURED),
        # a control
        (i(0.4, 0.6), dict(advantage=i(0.2, 0.4), control=i(-0.1, 0.1)), V.HOLDS),
        # it has the effect, less of it
        (i(0.4, 0.6), dict(advantage=i(0.2, 0.4), control=i(0.1, 0.3)), V.HOLDS),
        (i(0.4, 0.6), dict(advantage=i(-0.1, 0.1), control=i(0.4, 0.6)), V.SHARED),
        (i(0.4, 0.6), dict(advantage=i(-0.4, -0.2), control=i(0.7, 0.9)), V.SHARED),  # more of it
        # only the difference is known
        (i(0.4, 0.6), dict(advantage=i(-0.1, 0.1)), V.SHARED),
        (
            i(0.4, 0.6),
            dict(advantage=i(-0.1, 0.6), control=i(-0.1, 0.5)),
            V.UNDECIDED,
        ),  # neither is clear
        (
            i(-0.6, -0.4),
            dict(relation="below", advantage=i(-0.4, -0.2), control=i(-0.3, -0.1)),
            V.HOLDS,
        ),
        (
            i(-0.6, -0.4),
            dict(relation="below", advantage=i(-0.1, 0.1), control=i(-0.6, -0.4)),
            V.SHARED,
        ),
        # the control can't help a wrong sign
        (i(-0.6, -0.4), dict(advantage=i(-0.4, -0.2), control=i(-0.1, 0.1)), V.FAILS),
        # the claimed size
        (i(0.1, 0.3), dict(size=0.5), V.SMALLER),
        (i(0.1, 0.5), dict(size=0.5), V.HOLDS),  # as large as claimed is possible
        (i(-0.1, 0.3), dict(size=0.5), V.UNDECIDED),
        (i(-0.3, -0.1), dict(relation="below", size=0.5), V.SMALLER),
        (i(-0.7, -0.1), dict(relation="below", size=0.5), V.HOLDS),
        (i(0.1, 0.3), dict(size=0.5, advantage=i(-0.1, 0.1), control=i(0.1, 0.3)), V.SMALLER),
        # no effect of that kind
        (i(-0.1, 0.1), dict(size=0.5, margin=0.2), V.FAILS),
        (i(-0.1, 0.3), dict(size=0.5, margin=0.2), V.UNDECIDED),
        (i(0.05, 0.15), dict(size=0.5, margin=0.2), V.SMALLER),
        (i(-0.1, 0.1), dict(relation="below", size=0.5, margin=0.2), V.FAILS),
        # equality
        (i(-0.1, 0.1), dict(relation="equal", margin=0.2), V.HOLDS),
        (i(-0.1, 0.3), dict(relation="equal", margin=0.2), V.UNDECIDED),
        (i(0.3, 0.5), dict(relation="equal", margin=0.2), V.FAILS),
        (i(-0.5, -0.3), dict(relation="equal", margin=0.2), V.FAILS),
        (i(-0.1, 0.1), dict(relation="equal", margin=0.2, size=0.5), V.HOLDS),
        (i(-0.1, 0.1), dict(EQUAL, advantage=i(-0.1, 0.1), control=i(-0.1, 0.1)), V.SHARED),
        (i(-0.1, 0.1), dict(EQUAL, advantage=i(-0.9, -0.2), control=i(0.3, 0.8)), V.HOLDS),
        (i(-0.1, 0.1), dict(EQUAL, advantage=i(-0.9, 0.2), control=i(-0.1, 0.8)), V.UNDECIDED),
        # what had to be learned
        (i(0.1, 0.3), dict(learned=[LEARNED]), V.HOLDS),
        (i(0.1, 0.3), dict(learned=[LEARNED, NOT]), V.NOT_LEARNED),
        (i(-0.3, -0.1), dict(learned=[NOT]), V.NOT_LEARNED),
        (None, dict(learned=[NOT]), V.NOT_MEASURED),
    ],
)
def test_rule(effect, terms, expected):
    assert verdict(effect, **terms) is expected


def test_above_and_below_are_mirror_images():
    def mirrored(o):
        return None if o is None else o.map(lambda v: -v)

    grid = [i(a / 10, b / 10) for a, b in combinations(range(-6, 7, 3), 2)]
    for effect, advantage, control in product(grid, [None, *grid], [None, *grid]):
        up = verdict(effect, "above", advantage, control, size=0.4, margin=0.2)
        others = mirrored(advantage), mirrored(control)
        down = verdict(mirrored(effect), "below", *others, size=0.4, margin=0.2)
        assert up is down


@pytest.mark.parametrize(
    "relation, size, margin, words",
    [
        ("above", 0.5, 0.5, "0.5 is not below the claimed effect of 0.5"),
        ("above", 0.07, 0.1, "could not refute it"),
        ("equal", 0.07, 0.1, "could not refute it"),
        ("above", None, 0.1, "size: a margin needs"),
        ("equal", None, None, 'margin: "equal" needs'),
        ("above", 0.5, 0.0, "margin: a positive"),
        ("above", 0.5, math.nan, "margin: a finite number"),
        ("above", -0.5, None, "size: how large"),
        ("larger", None, None, "above, below, equal is needed, got 'larger'"),
    ],
)
def test_terms_without_meaning_are_refused(relation, size, margin, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        check_terms(relation, size, margin)
    with pytest.raises(ValueError, match=re.escape(words)):
        verdict(None, relation, size=size, margin=margin)


def test_terms_with_meaning_pass():
    for relation in RELATIONS:
        check_terms(relation, 0.5, 0.2)
    check_terms("equal", None, 0.1)
    check_terms("below", 0.5, None)


@pytest.mark.parametrize(
    "score, less, ok",
    [
        (0.9, False, True),
        (0.89, False, False),
        (0.9, True, True),
        (0.91, True, False),
        (math.nan, False, False),
        (math.nan, True, False),
        (None, False, False),
        (None, True, False),
    ],
)
def test_learned(score, less, ok):
    assert Learned("net", "share", score, 0.9, less=less).ok is ok


def test_learned_says_all_of_it():
    assert str(NOT) == "net: share 0.45, at least 0.9 needed, 100 steps"
    lost = Learned("net", "error", None, 1.0, less=True, note="lost")
    assert str(lost) == "net: error unknown, at most 1 needed, lost"


def test_vocabulary():
    assert list(Verdict) == WORDS and [Verdict(w).value for w in WORDS] == WORDS
    assert f"{V.SHARED}" == "holds for the control as well"


@pytest.mark.parametrize(
    "found, expected",
    [
        ([V.HOLDS, V.HOLDS], V.HOLDS),
        ([V.HOLDS, V.SHARED], V.SHARED),
        ([V.SHARED, V.SMALLER], V.SMALLER),
        ([V.SMALLER, V.UNDECIDED], V.UNDECIDED),
        ([V.UNDECIDED, V.FAILS, V.HOLDS], V.FAILS),  # refuted in one place is refuted
        ([V.UNDECIDED, V.NOT_MEASURED], V.NOT_MEASURED),
        ([V.NOT_MEASURED, V.FAILS], V.FAILS),
        ([V.FAILS, V.NOT_LEARNED], V.NOT_LEARNED),
        ([], V.NOT_MEASURED),
    ],
)
def test_weakest(found, expected):
    assert weakest(found) is expected is weakest(found[::-1])


def test_each_has_its_class_color_and_meaning():
    for attribute in ("css", "color", "meaning"):
        assert len({getattr(v, attribute) for v in Verdict}) == len(WORDS)
    for v in Verdict:
        assert re.fullmatch(r"verdict-[a-z-]+", v.css) and re.fullmatch(r"#[0-9A-F]{6}", v.color)


def test_style_sheet_colors_each_once():
    rules = dict(re.findall(r"^\.(verdict-[\w-]+)\{background:(#\w+)\}$", verdict_css(), re.M))
    assert rules == {v.css: v.color for v in Verdict}
    first = verdict_css().splitlines()[0]
    assert all(f".{v.css}" in first for v in Verdict) and "color:#000" in first


def linear(color):
    "Red, green and blue, linear in light"
    c = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    return [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in c]


def luminance(color):
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear(color)))


@pytest.mark.parametrize("v", Verdict, ids=lambda v: v.name)
def test_black_letters_are_readable(v):
    "Contrast of at least 4.5 (WCAG 2, AA); the ground stands out from a dark page by 3"
    assert (luminance(v.color) + 0.05) / 0.05 >= 4.5
    assert (luminance(v.color) + 0.05) / (luminance("#14191E") + 0.05) >= 3


# Machado et al. 2009, full deficiency: what is left of linear red, green and blue
SEEN = {
    "all": [(1, 0, 0), (0, 1, 0), (0, 0, 1)],
    "without red": [
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ],
    "without green": [
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ],
}


def lab(color, matrix):
    "CIE L*a*b* of a colour as somebody sees it, D65"
    rgb = [sum(a * b for a, b in zip(row, linear(color))) for row in matrix]
    to_xyz = [(0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)]
    xyz = [max(0, sum(a * b for a, b in zip(row, rgb))) for row in to_xyz]
    xyz = [v / white for v, white in zip(xyz, (0.9505, 1, 1.089))]
    x, y, z = [v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz]
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("eyes", SEEN)
def test_colors_stay_apart(eyes):
    "2.3 is just noticeable side by side; 10 is seen at a glance"
    for a, b in combinations(Verdict, 2):
        assert math.dist(lab(a.color, SEEN[eyes]), lab(b.color, SEEN[eyes])) > 10, (a, b)
