"The switch: found where it is, not found where none is, and controlled for smoothness"

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import close, constructed, gauss, HO, images, normal, sweep, trained, WIDE

from denoise_study.daed import crossing, errors_by_image, plot_transition, resampled_ratios
from denoise_study.daed import rotated, switch_onset, switch_table, transition_point
from denoise_study.diffusion import LinearDenoiser


def test_switch_is_found_where_it_is():
    p = transition_point(constructed(onset=8), "a", "b")
    assert 0.04 < p.share_low < p.share < p.share_high < 0.08  # it opens between those two times
    assert p.found == 1 and not p.from_start and p.significant_share == 0.08
    close([p.t, p.level, p.log_snr], [100 * p.share, p.share, 5 - 10 * p.share])
    assert p.n_a == 80 and p.n_b == 90 and p.k > 1.96 and len(p.gaps["t"]) == 7
    mae = constructed(onset=8).query("how == 'ancestral' and t == 12").groupby("set").mae
    a, b = mae.mean()["a"], mae.mean()["b"]
    close(p.gaps["excess"][4], b / a - 1, rtol=1e-9)
    var = mae.var() / mae.count()
    close(p.gaps["se"][4], b / a * (var["a"] / a**2 + var["b"] / b**2) ** 0.5, rtol=0.08)


def gradual(n, seed=0):
    "Errors whose excess on the other set grows with the time: 3% at 1% of the steps, 27% at 20%"
    rng, rows = np.random.default_rng(seed), []
    for name in "ab":
        hard = rng.normal(size=n)
        for t in (1, 2, 5, 10, 15, 20):
            excess = 0.06 * t**0.5 * (name == "b")
            mae = 0.02 * t * (1 + excess) * (1 + 0.3 * hard + 0.2 * rng.normal(size=n))
            where = dict(model="m", set=name, how="ancestral", t=t, share=t / 100, level=t / 100)
            rows.append(pd.DataFrame(dict(where, log_snr=-t, seed=0, image=np.arange(n), mae=mae)))
    return pd.concat(rows, ignore_index=True)


def test_the_place_does_not_move_with_the_number_of_images():
    """An effect has a place: at every n its interval holds it, and narrows. Where the gap becomes
    significant is a sample size: it falls from the last time tried to the first"""
    table = switch_table(gradual(6000), "a", "b", (50, 200, 1000, 6000), (0.12,), n_boot=300)
    truth = (0.12 / 0.06) ** 2 / 100
    grid = np.interp(0.12, 0.06 * np.array([2, 5]) ** 0.5, [0.02, 0.05])  # a line between times
    assert abs(grid - truth) < 0.003
    low, high = table.share_low.fillna(0), table.share_high.fillna(1)
    assert ((low <= grid) & (grid <= high)).all()
    width = (high - low).tolist()
    assert width[-1] < 0.02 and width[-1] < width[-2] < width[-3]
    first = table.significant_share.fillna(1).tolist()
    assert first == sorted(first, reverse=True) and first[0] >= 0.1 and first[-1] == 0.01


def test_crossing_between_times():
    places = np.array([0.1, 0.2, 0.4])
    curves = np.array([[0.0, 0.2, 0.4], [0.3, 0.3, 0.3], [0.0, 0.0, 0.1], [0.2, 0.0, 0.4]])
    close(crossing(curves, places, 0.1)[[0, 1, 3]], [0.15, 0.1, 0.25], atol=1e-12)
    assert crossing(curves, places, 0.1)[2] == np.inf  # reached, not passed


def test_switch_false_alarms():
    """Two halves of one set: the simultaneous band finds a significant gap in about 2.5% of cases;
    one standard error for each t, far more"""
    tables = [constructed(n=(50, 60), ts=(1, 4, 8, 16), seed=s) for s in range(150)]
    points = [transition_point(e, "a", "b", n_boot=200) for e in tables]
    alarms = sum(p.significant_share is not None for p in points)
    each = sum(max(np.array(p.gaps["excess"]) / p.gaps["se"]) > 1 for p in points)
    assert alarms <= 9 and each > 20


def test_switch_interval_holds_the_truth():
    "A small gap: the interval over images still covers the place, and is wide"
    points = [transition_point(gradual(80, seed=s), "a", "b", n_boot=200) for s in range(60)]
    truth = np.interp(0.1, 0.06 * np.array([2, 5]) ** 0.5, [0.02, 0.05])
    held = [(p.share_low or 1) <= truth <= (p.share_high or 1) for p in points]
    assert np.mean(held) > 0.85


def test_switch_control_for_smoothness():
    """A set that is harder for any model: the plain gap opens at once, relative to the linear
    filter there is none; 'noisy' is no control"""
    errors = constructed(ease=1.3)
    assert (
        transition_point(errors, "a", "b").from_start
        and transition_point(errors, "a", "b", relative_to="noisy").from_start
    )
    assert transition_point(errors, "a", "b", relative_to="linear").t is None
    hidden = constructed(onset=12, ease=0.7)  # easier, and yet unknown to the model
    assert transition_point(hidden, "a", "b").t is None
    assert 8 < transition_point(hidden, "a", "b", relative_to="linear").t < 12


def test_switch_least_gap_that_counts():
    errors = constructed(onset=4, size=0.3)
    places = [transition_point(errors, "a", "b", least=v).t for v in (0.05, 0.2)]
    assert 2 < places[0] < places[1] < 4
    assert transition_point(errors, "a", "b", least=1.0).t is None


def test_gap_that_closes_again_is_still_a_switch():
    """At full noise the model does not look at its input and all curves meet; that must not undo
    the switch"""
    errors = constructed(onset=4)
    late = (errors.set == "b") & (errors.t >= 16) & (errors.how == "ancestral")
    errors.loc[late, "mae"] /= 1.3
    assert 2 < transition_point(errors, "a", "b").t < 4


def test_switch_of_a_model():
    """The optimal model for N(0, .25) on N(0, 1): gaps as computed by hand, and none between two
    draws of one set"""
    model, ts = gauss(n=16), [1, 10, 50, 98, 200]
    errors = sweep(
        model,
        {"own": normal(150), "other": normal(150, s2=1.0, seed=6), "again": normal(150, seed=7)},
        ts,
        ("mean",),
        scale=WIDE,
    )
    p = transition_point(errors, "own", "other", how="mean", metric="mse")

    def mse(s2, t):
        ab = float(HO.alpha_bar[t])
        c = ab**0.5 * 0.25 / (ab * 0.25 + 1 - ab)
        return (1 - c * ab**0.5) ** 2 * s2 + c**2 * (1 - ab)

    close(p.gaps["excess"], [mse(1.0, t) / mse(0.25, t) - 1 for t in ts], rtol=0.15, atol=5e-3)
    assert 1 < p.t < 98 and transition_point(errors, "own", "again", how="mean").t is None


def test_rotated_keeps_what_a_linear_filter_knows():
    x = images(6, 8)
    assert (
        torch.equal(rotated(x, 4), x)
        and not torch.equal(rotated(x), x)
        and rotated(x[:, :, :4]).shape == (6, 1, 8, 4)
    )
    close(rotated(x).flatten(1).sort().values, x.flatten(1).sort().values)
    rough = [sum(o.diff(dim=d).abs().mean() for d in (2, 3)) for o in (x, rotated(x))]
    close(rough[0], rough[1], rtol=1e-6)
    a, b = LinearDenoiser(images(200)), LinearDenoiser(rotated(images(200)))
    close(rotated(a(x, 0.7)), b(rotated(x), 0.7), atol=1e-5)


def test_onset_against_a_loop():
    "Walk back from the largest z as long as it is above k"

    def loop(z, k):
        if max(z) <= k:
            return len(z)
        i = int(np.argmax(z))
        while i > 0 and z[i - 1] > k:
            i -= 1
        return i

    z = np.random.default_rng(0).normal(size=(400, 7))
    assert switch_onset(z, 0.8).tolist() == [loop(row, 0.8) for row in z]


def test_resampled_ratios_have_the_spread_of_a_mean():
    "Relative to nothing the ratio is a mean, with the standard error of a mean"
    values, times = errors_by_image(constructed(), "a")
    boots = resampled_ratios(values, 4000, np.random.default_rng(0))
    assert times.tolist() == [1, 2, 4, 8, 12, 16, 20] and values.shape == (80, 7, 2)
    close(boots.std(0), values[..., 0].std(0) / 80**0.5, rtol=0.06)


def test_figure_names_the_switch():
    errors = sweep(
        trained(),
        {"a": images(8), "b": images(8, seed=1)},
        [1, 3, 8],
        ("ancestral", "mean", "noisy"),
    )
    found = constructed(onset=8).assign(ms_ssim=1.0, win=7, scales=1)
    none = transition_point(errors, "a", "b", n_boot=50, least=5.0)
    assert "500% larger: nowhere" in plot_transition(errors, none)[1].get_title()
    point = transition_point(found, "a", "b")
    assert 4 < point.t < 8  # where the curves are apart by a third of what they will be
    title = plot_transition(found, point)[1].get_title()
    assert f"10% larger from {point.t:.1f}% of the steps" in title  # of a chain of 100


two = constructed()
CALLS = {
    "two models in one switch": (
        lambda: transition_point(pd.concat([two, two.assign(model="n")]), "a", "b"),
        "errors: one model",
    ),
    "set unknown": (
        lambda: transition_point(two, "a", "c"),
        "errors: no rows with how='ancestral' for the set 'c'",
    ),
    "way not measured": (
        lambda: transition_point(two, "a", "b", how="ddim"),
        "errors: no rows with how='ddim'",
    ),
    "switch of a similarity": (
        lambda: transition_point(two, "a", "b", metric="ms_ssim"),
        "metric: 'mae' or 'mse'",
    ),
    "no size": (
        lambda: transition_point(two, "a", "b", least=0.0),
        "least: a positive share of the error is needed, got 0.0",
    ),
    "other times": (
        lambda: transition_point(two[(two.set == "a") | (two.t > 1)], "a", "b"),
        "not measured at the same times",
    ),
}


@pytest.mark.parametrize("case", CALLS)
def test_bad_input(case):
    call, message = CALLS[case]
    with pytest.raises((ValueError, TypeError), match=f"(?s){message}"):
        call()
