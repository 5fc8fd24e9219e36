"Gaussian data, where the perfect model is known, and the best linear denoiser of any data"

import math

import pytest
import torch
from helpers import close, gauss, gen, images, normal, sweep, WIDE
from sklearn.covariance import ledoit_wolf_shrinkage

from denoise_study.diffusion import chain_variance, LinearDenoiser, Schedule, summarise


@pytest.mark.parametrize("var,x1,x0", [("large", 1.0, 0.9999), ("small", 0.99117, 0.99107)])
def test_variances_at_the_end_of_a_chain(var, x1, x0):
    "At t=1 and t=0 of a chain of 1000 steps for unit data"
    model, one, v, seen = gauss(s2=1.0, n=1, var=var), torch.ones(1, 1, 1, 1), 1.0, {}
    for t in range(1000, 0, -1):
        mean, log_var, _ = model.p_mean_var(one, t, clip=False)
        v = mean.item() ** 2 * v + (math.exp(log_var) if t > 1 else 0.0)
        seen[t - 1] = v
    close([seen[1], seen[0]], [x1, x0], atol=2e-5)
    close([chain_variance(model, 1000, t, 1.0) for t in (1, 0)], [seen[1], seen[0]], rtol=1e-12)


def test_sample_variance_matches_the_oracle():
    "The sampler itself, by drawing: 80 x 64 x 64 pixels give the variance to 0.5%"
    model = gauss(Schedule.linear(100), n=64, var="small")
    x = model.sample(80, bs=80, clip=False, progress=False)
    close(x.var(), 0.21923, rtol=0.008)


def test_sample_to_mean_ratio():
    "A draw has twice the square error of the mean (1.9987 with the exact variance)"
    model = gauss(n=64, var="small")
    x0 = 0.5 * torch.randn(40, 1, 64, 64, generator=gen(9))  # not the seed of the corruption
    mse = {}
    for how in ("mean", "ancestral"):
        mse[how] = float((model.reconstruct(x0, 98, how) - x0).pow(2).mean())
    close(mse["mean"], 0.076491, rtol=0.01)
    close(mse["ancestral"] / mse["mean"], 0.15000 / 0.076491, rtol=0.01)


@pytest.mark.parametrize("n", [30, 64, 300])
def test_linear_denoiser_against_its_formula(n):
    "Dense matrices and scikit-learn's shrinkage; fewer images than pixels, as many, more"
    x = images(n) @ torch.randn(8, 8, generator=gen(1)) * 0.2
    flat, one = x.flatten(1).double(), torch.eye(64).double()
    lin, s = LinearDenoiser(x), ledoit_wolf_shrinkage(flat.numpy())
    cov = torch.cov(flat.T, correction=0)
    cov = (1 - s) * cov + s * cov.trace() / 64 * one
    xt, ab = images(5, seed=3), 0.8
    gain = ab**0.5 * cov @ torch.linalg.inv(ab * cov + (1 - ab) * one)
    want = flat.mean(0) + (xt.flatten(1).double() - ab**0.5 * flat.mean(0)) @ gain.T
    assert lin.shrinkage == pytest.approx(s, rel=1e-6)
    close(lin(xt, ab).flatten(1), want, atol=1e-5)


def test_linear_denoiser_is_optimal_for_gaussian_data():
    errors = sweep(
        gauss(n=8),
        normal(400, 8),
        [98],
        ("linear", "mean"),
        train=normal(2000, 8, seed=9),
        scale=WIDE,
    )
    mse = summarise(errors).set_index("how").mse
    close(mse["linear"] / mse["mean"], 1, atol=0.02)
    same = LinearDenoiser(torch.ones(4, 1, 8, 8) * 0.3)  # nothing varies: the mean is the answer
    close(same(images(2), 0.5), torch.full((2, 1, 8, 8), 0.3), atol=1e-6)


def test_one_image_has_no_covariance():
    with pytest.raises(ValueError, match="train: 1 image"):
        LinearDenoiser(images(1))
