"The switch: found where it is, not found where none is, and controlled for smoothness"

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import close, constructed, gauss, HO, images, normal, sweep, trained, WIDE

from denoise_study.daed import errors_by_image, plot_transition, resampled_ratios, rotated
from denoise_study.daed import switch_onset, transition_point
from denoise_study.diffusion import LinearDenoiser


def test_switch_is_found_where_it_is():
    p = transition_point(constructed(onset=8), "a", "b")
    assert (p.t, p.t_low, p.t_high) == (8, 8, 8) and p.found == 1 and not p.from_start
    close([p.share, p.level, p.log_snr], [0.08, 0.08, 4.2])
    assert p.n_a == 80 and p.n_b == 90 and p.k > 1.96 and len(p.gaps["t"]) == 7
    gap = constructed(onset=8).query("how == 'ancestral' and t == 12").groupby("set").mae
    close(p.gaps["gap"][4], gap.mean()["b"] - gap.mean()["a"], rtol=1e-9)
    close(p.gaps["se"][4], (gap.var() / gap.count()).sum() ** 0.5, rtol=0.08)


def test_switch_false_alarms():
    """Two halves of one set: the simultaneous rule finds a switch in about 2.5% of cases; one
    time at 1.96 for each t, far more"""
    tables = [constructed(n=(50, 60), ts=(1, 4, 8, 16), seed=s) for s in range(150)]
    alarms = {
        k: sum(transition_point(e, "a", "b", k=k, n_boot=200).t is not None for e in tables)
        for k in (None, 1.0)
    }
    assert alarms[None] <= 9 and alarms[1.0] > 20


def test_switch_interval_holds_the_truth():
    "A small gap: the interval over images still covers the onset, and is wide"
    points = [
        transition_point(constructed(onset=8, size=0.12, seed=s), "a", "b", n_boot=200)
        for s in range(60)
    ]
    held = [(p.t_low or 99) <= 8 <= (p.t_high or 99) for p in points if p.t]
    assert len(held) > 30 and np.mean(held) > 0.8


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
    assert (
        transition_point(hidden, "a", "b").t is None
        and transition_point(hidden, "a", "b", relative_to="linear").t == 12
    )


def test_switch_least_gap_that_counts():
    errors = constructed(onset=4, size=0.3)
    assert transition_point(errors, "a", "b").t == 4 and transition_point(
        errors, "a", "b", least=0.05
    ).t in (12, 16)
    assert transition_point(errors, "a", "b", least=1.0).t is None


def test_gap_that_closes_again_is_still_a_switch():
    """At full noise the model does not look at its input and all curves meet; that must not undo
    the switch"""
    errors = constructed(onset=4)
    late = (errors.set == "b") & (errors.t >= 16) & (errors.how == "ancestral")
    errors.loc[late, "mae"] /= 1.3
    assert transition_point(errors, "a", "b").t == 4


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

    close(p.gaps["gap"], [mse(1.0, t) - mse(0.25, t) for t in ts], rtol=0.1, atol=1e-6)
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
    none = transition_point(errors, "a", "b", n_boot=50)
    assert "no switch" in plot_transition(errors, none)[1].get_title()
    assert (
        "switch at t = " in plot_transition(found, transition_point(found, "a", "b"))[1].get_title()
    )


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
