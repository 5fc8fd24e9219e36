"Stability over noise levels against closed forms, with floor and ceiling"

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from helpers import blind_denoiser, pictures, randn
from helpers_probes import Reader
from denoise_study.core import untrained
from denoise_study.representation import cosine_to_others, instability_change, LevelSet
from denoise_study.representation import plot_stability, stability, statistic_interval

torch.set_num_threads(1)
D = blind_denoiser()
X = pictures()
# value, low, high of the mean and the median of `normal(60)` as first released
RELEASED = dict(
    mean=(0.05330253510425488, -0.1875783478608355, 0.2767389637185258),
    median=(0.11612634733319283, -0.24979473054409027, 0.4408094152808189),
)


def test_high_cosines_are_no_stability():
    "Untrained: near 1 across noise levels, and just as near between different images"
    d = untrained(blind_denoiser(widths=(8, 16, 32, 64)), 3)
    t = stability(
        d, pictures(16, 16, seed=2), sigmas=(0.1, 1.0), taps=("mid",), draws=6, progress=False
    )
    assert (t.same > 0.97).all() and (t.between > 0.97).all() and (t.ceiling > t.same).all()


def test_stability_of_known_representations():
    "A tap that hears only the image, one that hears only the noise level, with their closed forms"
    mean = lambda x: torch.cat([x, 1 - x], 1)
    t = stability(Reader(mean), pictures(10), sigmas=(0.2, 0.5), draws=200, progress=False)
    assert (
        (t.same > 0.999).all()
        and (t.instability < 0.05).all()
        and len(t) == 2
        and t.n.tolist() == [10, 10]
    )
    # spatial mean of a noisy blank: E (x - .5)^2 = sigma^2, beside a constant channel
    blank, power = (
        torch.full((10, 1, 16, 16), 0.5),
        lambda x: torch.cat([(x - 0.5).square(), torch.ones_like(x)], 1),
    )
    t = stability(Reader(power), blank, sigmas=(0.2, 1.0), draws=50, progress=False).set_index(
        "sigma"
    )
    for s in 0.2, 1.0:
        u, v = np.array([0.25, 1]), np.array([s * s, 1])
        assert t.same[s] == pytest.approx(u @ v / np.linalg.norm(u) / np.linalg.norm(v), abs=0.005)
        assert t.norm[s] == pytest.approx(np.linalg.norm(v) / np.linalg.norm(u), rel=0.02)
    assert t.instability.min() > 50  # between images nothing differs but the draws


def test_between_images_is_the_mean_of_all_other_pairs():
    v = randn(9, 4)
    cos = nn.functional.cosine_similarity(v[:, None].double(), v[None].double(), dim=-1)
    np.testing.assert_allclose(cosine_to_others(v), (cos.sum(1) - 1) / 8, rtol=1e-9)


def test_noise_levels_have_noise_of_their_own():
    "Shared noise would make a tap that hears only the noise look stable"
    blank, ups = (
        torch.full((30, 1, 16, 16), 0.5),
        lambda x: torch.cat([(x - 0.5)[:, :, :1], (0.5 - x)[:, :, :1]], 1),
    )
    t = stability(Reader(ups), blank, sigmas=(0.2, 0.5), draws=1, progress=False)
    assert (t.same.abs() < 0.5).all()


def test_collapsed_images_are_counted():
    t = stability(Reader(lambda x: x * 0), pictures(4), sigmas=(0.2,), draws=1, progress=False)
    assert t.dead.tolist() == [4] and len(t) == 1
    bright = lambda x: torch.cat([x, 1 - x], 1).abs() * (x.mean((1, 2, 3), keepdim=True) > 0.5)
    t = stability(
        Reader(bright),
        torch.cat([torch.zeros(4, 1, 16, 16), pictures(6) * 0.4 + 0.6]),
        sigmas=(0.2,),
        draws=2,
        progress=False,
    )
    assert (
        t.dead.item() == 4
        and t.n.item() == 6
        and t.same.item() > 0.95
        and t.instability_high.notna().all()
    )


def test_ratio_interval_covers():
    i = statistic_interval(np.mean, randn(400, seed=5).numpy())
    assert (
        i.low < i.value < i.high
        and i.n == 400
        and i.high - i.low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    )


def test_intervals_are_those_of_the_first_release():
    "Reports must not move: value and ends of two statistics of one sample"
    v = randn(60).numpy()
    mean, median = (statistic_interval(f, v) for f in (np.mean, np.median))
    assert (mean.value, mean.low, mean.high) == pytest.approx(RELEASED["mean"])
    assert (median.value, median.low, median.high) == pytest.approx(RELEASED["median"])
    assert statistic_interval(np.nanmean, [np.nan, np.nan]) is None


def test_a_curve_for_every_tap():
    t = stability(D, X, sigmas=(0.2, 0.5), taps=("enc1", "mid"), draws=2, progress=False)
    axs = plot_stability(pd.concat([t, t.assign(network="other")]))
    assert len(axs) == 2 and {o.get_text() for o in axs[1].texts} == {"enc1", "mid"}


def test_a_level_set_is_the_table_and_the_cosines_behind_it():
    how = dict(sigmas=(0.1, 0.5), taps=("mid", "enc2"), draws=2, progress=False)
    found = LevelSet(D, X, **how)
    table = stability(D, X, **how)
    assert found.table().equals(table)
    row = table[(table.tap == "mid") & (table.sigma == 0.1)].iloc[0]
    same, between = found.cosines("mid", 0.1)
    assert same.nanmean().item() == pytest.approx(row["same"])
    assert row["norm_low"] <= row["norm"] <= row["norm_high"]


def test_instabilities_are_compared_on_the_same_images():
    rng = np.random.default_rng(0)
    hard = rng.uniform(0, 0.5, 200)  # some images turn more, in every network
    between = torch.full((200,), 0.5).double()
    one = torch.from_numpy(1 - hard), between
    other = torch.from_numpy(1 - hard - 0.01), between
    gap = instability_change(one, other)
    assert gap.value == pytest.approx(-0.02) and gap.high < 0

    def turned(same, axis):
        return (1 - same.mean(axis)) / 0.5

    alone = [statistic_interval(turned, o[0]) for o in (one, other)]
    assert alone[0].high > alone[1].low  # side by side nothing could be said
    dead = other[0].clone()
    dead[:50] = torch.nan
    assert instability_change(one, (dead, between)).n == 150
