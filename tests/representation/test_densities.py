"Distances of densities against closed forms"

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from denoise_study.denoiser import GaussianDenoiser
from denoise_study.representation import centroid, conditional_distance, score_distance
from helpers import rand, randn
from helpers_selfguided import C, Linear, refused, RESET, small, WHOLE


def gaussian(mean, var, n=20_000, seed=0):
    mean, var = (torch.as_tensor(v, dtype=torch.float32).view(-1, 1, 1) for v in (mean, var))
    return GaussianDenoiser(mean, var), mean + var.sqrt() * randn(n, *mean.shape, seed=seed)


def distance(a, b, sigmas):
    return score_distance(a[0], b[0], a[1], b[1], sigmas).mean().item()


def test_symmetric_kl_of_gaussians():
    "1, not pi/2 (sigma left out) and not 2 (d sigma^2); 9/8 where only the variances differ"
    one = distance(gaussian([0.0], [1.0]), gaussian([1.0], [1.0]), WHOLE)
    assert one == pytest.approx(1, rel=2e-3)
    wider = distance(gaussian([0.0], [1.0]), gaussian([0.0], [4.0], seed=1), WHOLE)
    assert wider == pytest.approx(9 / 8, rel=0.03)


def test_sum_over_pixels_and_both_directions():
    for n in (1, 4, 16):
        pair = gaussian(np.zeros(n), np.ones(n), 10), gaussian(np.full(n, 0.5), np.ones(n), 10)
        assert distance(*pair, WHOLE) == pytest.approx(n / 4, rel=2e-3)
    a, b = gaussian([0.0], [1.0]), gaussian([0.0], [4.0], seed=1)
    one = score_distance(a[0], b[0], a[1], a[1], WHOLE).mean().item() / 2  # KL(p|q) alone
    assert one == pytest.approx((1 / 4 - 1 + math.log(4)) / 2, rel=0.03)
    assert one != pytest.approx(9 / 16, rel=0.2)


@pytest.mark.parametrize("lo,hi,want", [(0.1, 1, 2.53555), (0.05, 3, 3.30906), (1e-3, 1e3, 3.5)])
def test_truncated_closed_form(lo, hi, want):
    a, b = gaussian([0.0, 0], [1, 0.1], 10), gaussian([1, 0.5], [1, 0.1], 10)
    points = 40 if hi / lo < 1000 else 120
    assert distance(a, b, np.geomspace(lo, hi, points)) == pytest.approx(want, rel=0.01)
    # the default grid, and a linear one with few points
    assert distance(a, b, np.geomspace(0.1, 1, 10)) == pytest.approx(2.53555, rel=0.02)
    assert abs(distance(a, b, np.linspace(1e-3, 1e3, points)) / 3.5 - 1) > 0.5


def test_conditional_distance_and_its_floor_in_closed_form():
    """Reset of one coordinate: D1 - D2 = W[:,0] (delta + noise of two targets),
    W = C (C + s^2)^-1"""
    cov, n_noise, P, draws = torch.tensor(0.01 * C).float(), 5, 200, 4
    D, sigmas = Linear(cov, [[1.0, 0, 0]]), np.geomspace(0.05, 1, 8)
    a, b = torch.full((P, 3, 1, 1), 0.4), torch.full((P, 3, 1, 1), 0.6)
    d = conditional_distance(D, a, b, sigmas, draws, n_noise=n_noise, progress=False, **RESET)
    W0 = []
    for s in sigmas:
        w = ((0.01 * C) @ np.linalg.inv(0.01 * C + s**2 * np.eye(3)))[:, 0]
        W0.append(w @ w)

    def integral(square):
        return np.trapezoid(2 * np.array(W0) * square / sigmas**2, np.log(sigmas))

    assert d.d2.mean() == pytest.approx(integral(0.04 + 2 * sigmas**2 / n_noise), rel=0.05)
    assert d.floor.mean() == pytest.approx(integral(2 * sigmas**2 / n_noise), rel=0.05)
    assert d.dphi2.mean() == pytest.approx(0.04 + 2 * 0.25 / 20, rel=0.3)
    assert d.dphi2_floor.mean() == pytest.approx(2 * 0.25 / 20, rel=0.25)
    assert (d.sigma_min == 0.05).all() and (d.sigma_max == 1).all() and (d.draws == draws).all()


def test_order_of_pairs_does_not_hang_on_the_smallest_sigma():
    D = Linear(torch.tensor(0.01 * C).float(), [[1.0, 0, 0]])
    a = torch.full((24, 3, 1, 1), 0.5)
    b = 0.5 + 0.4 * (rand(24, 1, 1, 1) - 0.5).expand(24, 3, 1, 1)
    ranks = []
    for lo in (0.05, 0.1):
        sigmas = np.geomspace(lo, 1, 6)
        ranks.append(conditional_distance(D, a, b, sigmas, 2, progress=False, **RESET))
    assert spearmanr(ranks[0].d2, ranks[1].d2)[0] > 0.8
    assert all(spearmanr(r.d2, (b - a)[:, 0, 0, 0] ** 2)[0] > 0.8 for r in ranks)


D, x = small(), rand(2, 1, 16, 16)
middle = centroid(x)

CALLS = {
    "falling sigmas": (lambda: score_distance(D, D, x, x, [1.0, 0.5]), "sigmas: .*rising"),
    "integral from 0": (lambda: score_distance(D, D, x, x, [0.0, 0.5]), "sigmas: .*above 0"),
    "other shapes": (lambda: score_distance(D, D, x, x[:1], [0.1, 1.0]), "x1, x2: shapes"),
    "partners missing": (
        lambda: conditional_distance(D, x, x[:1], progress=False),
        "a, b, draws: partners",
    ),
    "centroids without samples": (
        lambda: conditional_distance(D, middle, middle, progress=False),
        "samples: a centroid",
    ),
}


@pytest.mark.parametrize("case", CALLS)
def test_bad_input(case):
    refused(*CALLS[case])
