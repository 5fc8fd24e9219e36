"The ratio of two distances, its rank correlation and its null"

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from denoise_study.denoiser import GaussianDenoiser
from denoise_study.representation import bounds_interval, paired_ratio, plot_ratio, ratio_test
from denoise_study.representation import score_distance
from helpers_selfguided import C, refused, WHOLE


def test_linear_gaussian_family_has_known_a_and_b():
    "Means B phi, one covariance C: d2 = dphi' B'C^-1B dphi; A and B are the extreme eigenvalues"
    B = np.array([[1, 0.5], [0, 1], [0.3, -1]])
    values, vectors = np.linalg.eigh(B.T @ np.linalg.inv(C) @ B)
    angles = np.linspace(0, np.pi, 24, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    dphi = np.concatenate([vectors.T, circle]) * np.linspace(0.5, 2, 26)[:, None]
    cov, d2 = torch.tensor(C).float(), []
    for v in dphi:
        means = [torch.zeros(3, 1, 1), torch.tensor(B @ v).float().view(3, 1, 1)]
        D1, D2 = (GaussianDenoiser(m, cov) for m in means)
        x1, x2 = (m.expand(2, -1, -1, -1) for m in means)
        d2.append(score_distance(D1, D2, x1, x2, WHOLE).mean().item())
    t = ratio_test(d2, (dphi**2).sum(1))
    assert t.A == pytest.approx(values[0], rel=0.01) and t.B == pytest.approx(values[1], rel=0.01)
    assert t.ratio == pytest.approx(values[1] / values[0], rel=0.01) and t.ratio_90 <= t.ratio


def test_against_scipy_and_its_null():
    rng = np.random.default_rng(0)
    q = np.exp(rng.normal(size=40))
    d2 = q * np.exp(0.3 * rng.normal(size=40))
    t = ratio_test(d2, q)
    assert t.rank == pytest.approx(spearmanr(d2, q)[0])
    assert t.p == 0.001 and t.low < t.rank < t.high
    assert t.ratio == pytest.approx((d2 / q).max() / (d2 / q).min())
    assert t.ratio < t.shuffled[0] < t.shuffled[1] < t.shuffled[2]
    assert t.spread == pytest.approx(q.max() / q.min()) and ratio_test(d2, q) == t
    null = [ratio_test(rng.permutation(d2), q, n_perm=49, seed=i).p for i in range(40)]
    assert 0.3 < np.mean(null) < 0.7 and np.mean(np.less(null, 0.1)) < 0.25  # uniform


def test_pairs_below_the_floor_are_left_out():
    rng = np.random.default_rng(1)
    q = np.concatenate([rng.uniform(1, 2, 30), [1e-6, 2e-6]])
    d2 = np.where(q > 1e-3, q, 1.0)
    t = ratio_test(d2, q, floor=1e-5)
    assert t.n == 30 and t.excluded == 2 and t.ratio == pytest.approx(1)
    assert ratio_test(d2, q).ratio > 1e5  # B/A explodes without
    i = bounds_interval(pd.DataFrame(dict(d2=d2, dphi2=q, dphi2_floor=1e-5)))
    assert i.n == 30 and i.value == pytest.approx(1)


def test_interval_of_the_bounds_ends_at_their_ratio():
    rng = np.random.default_rng(0)
    q = rng.uniform(1, 3, 25)
    table = pd.DataFrame(dict(d2=q * rng.uniform(1, 2, 25), dphi2=q, dphi2_floor=0.0))
    i, t = bounds_interval(table), ratio_test(table.d2, table.dphi2)
    assert i.low < i.value == pytest.approx(t.ratio) and i.high == pytest.approx(t.ratio)


def test_pairs_that_share_images_permute_images():
    """28 pairs of 8 images: distances from an outlier are all large, which a permutation of
    pairs takes for evidence"""
    pairs, ps = list(combinations(range(8), 2)), []
    for i in range(40):
        rng = np.random.default_rng(i)
        x, y = np.abs(rng.normal(size=(2, 8))) ** 3 + 0.1  # two unrelated properties
        d2, q = ([(v[i] - v[j]) ** 2 + 1e-3 for i, j in pairs] for v in (x, y))
        known = dict(n_perm=49, seed=i)
        ps.append([ratio_test(d2, q, **known).p, ratio_test(d2, q, pairs=pairs, **known).p])
    wrong, right = np.mean(np.less(ps, 0.1), axis=0)
    assert right < wrong and right < 0.25


def labels(axis):
    "Numbers to be read along an axis, within what is shown of it"
    low, high = axis.get_view_interval()
    shown = zip(axis.get_majorticklocs(), axis.get_majorticklabels())
    return [text.get_text() for at, text in shown if low <= at <= high and text.get_text()]


def test_axes_have_numbers_within_one_power_of_ten():
    q = np.linspace(2.2e-4, 7.9e-4, 9)
    table = pd.DataFrame(dict(dphi2=q, d2=q * 3000, se=0.01, floor=0.1))
    ax = plot_ratio(table, ratio_test(table.d2, table.dphi2, 1e-6))
    ax.figure.canvas.draw()
    assert labels(ax.xaxis) == ["0.00025", "0.0005", "0.00075"]
    wide = pd.DataFrame(dict(dphi2=q * [100, *[1] * 8], d2=q * 3000, se=0.01, floor=0.1))
    ax = plot_ratio(wide, ratio_test(wide.d2, wide.dphi2, 1e-6))
    ax.figure.canvas.draw()
    powers = [rf"$\mathdefault{{10^{{-{k}}}}}$" for k in (3, 2)]
    assert labels(ax.xaxis) == powers


def test_figure():
    q, d2 = [1e-9, 1.0, 2, 3, 4, 5], [1.0, 1, 2, 3, 4, 6]
    table = pd.DataFrame(dict(dphi2=q, d2=d2, se=0.1, floor=0.1))
    ax = plot_ratio(table, ratio_test(table.d2, table.dphi2, 1e-6))
    assert ax.get_yscale() == "log" and "B/A 1.2" in ax.get_title()


q = np.arange(1.0, 7)
star = [(0, i) for i in range(1, 7)]

CALLS = {
    "negative d2": (lambda: ratio_test(-q, q), "d2, dphi2"),
    "lengths differ": (lambda: ratio_test(q, q[:3]), "d2, dphi2: 6 and 3"),
    "all below the floor": (lambda: ratio_test(q, q, floor=10.0), "dphi2: 0 of 6"),
    "some pairs only": (lambda: ratio_test(q, q, pairs=star), "pairs: "),
}


@pytest.mark.parametrize("case", CALLS)
def test_bad_input(case):
    refused(*CALLS[case])


def pairs_of(noise, seed, n=40):
    "Distances that go together, up to noise on the logarithm of one"
    rng = np.random.default_rng(seed)
    q = np.exp(rng.normal(size=n))
    d2 = q * np.exp(noise * rng.normal(size=n))
    return pd.DataFrame(dict(d2=d2, dphi2=q, dphi2_floor=0.0))


def test_what_an_untrained_network_does_as_well_is_no_gain():
    close, loose = pairs_of(0.1, 0), pairs_of(2.0, 0)
    gain = paired_ratio(close, loose)
    assert gain.rank.above(0) and gain.bounds.below(0)
    assert paired_ratio(loose, close).rank.below(0)
    same = paired_ratio(close, close)
    assert same.rank.low == same.rank.high == same.bounds.low == same.bounds.high == 0
    values = [spearmanr(o.d2, o.dphi2)[0] for o in (close, loose)]
    assert gain.rank.value == pytest.approx(values[0] - values[1])
    assert not paired_ratio(pairs_of(0.3, 1), pairs_of(0.3, 2)).rank.above(0)


def test_pairs_count_where_both_networks_tell_the_images_apart():
    one, other = pairs_of(0.1, 0), pairs_of(0.1, 1)
    one.loc[:3, "dphi2"] = 1e-9
    other.loc[2:6, "dphi2"] = 1e-9
    both = [o.assign(dphi2_floor=1e-6) for o in (one, other)]
    assert paired_ratio(*both).rank.n == 40 - 7
    refused(lambda: paired_ratio(one, other[:9]), "other: 9 pairs, 40 in table")
    refused(lambda: paired_ratio(one, other.assign(dphi2_floor=1e9)), "0 of 40 pairs")
