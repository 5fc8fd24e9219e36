"Oracles against brute force, finite differences and each other"

import pytest
import torch

from denoise_study.denoiser import GaussianDenoiser, MixtureDenoiser
from helpers import gen, rand, randn


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0])
def test_score_is_the_gradient_of_the_log_density(sigma):
    D = MixtureDenoiser(rand(3, 1, 2, 3).double(), 0.02, torch.tensor([0.5, 0.3, 0.2]))
    y, v = rand(4, 1, 2, 3, seed=1).double(), randn(4, 1, 2, 3, seed=2).double()
    slope = (D.log_density(y + 1e-5 * v, sigma) - D.log_density(y - 1e-5 * v, sigma)) / 2e-5
    assert torch.allclose(((D(y, sigma) - y) / sigma**2 * v).sum((1, 2, 3)), slope, rtol=1e-4)
    assert torch.allclose(D.score(y, sigma), (D(y, sigma) - y) / sigma**2)


def test_mixture_against_importance_sampling():
    "E[x_clean | x] by brute force: prior samples weighted with the likelihood"
    means, w, sigma = rand(3, 1, 1, 2), torch.tensor([0.6, 0.3, 0.1]), 0.3
    x0 = means[torch.multinomial(w, 400_000, replacement=True, generator=gen())] + 0.2 * randn(
        400_000, 1, 1, 2, seed=1
    )
    y = torch.tensor([0.2, 0.9]).view(1, 1, 1, 2)
    p = (-(y - x0).pow(2).sum((1, 2, 3)) / (2 * sigma**2)).double().softmax(0)
    want = (p[:, None] * x0.flatten(1)).sum(0)
    assert torch.allclose(
        MixtureDenoiser(means, 0.04, w)(y, sigma).flatten().double(), want, atol=3e-3
    )


def test_gaussian_denoiser():
    A = randn(4, 4).double()
    cov, mean, y = A @ A.T, rand(1, 2, 2).double(), randn(5, 1, 2, 2, seed=1).double()
    sigma = torch.tensor([0.1, 0.5, 1.0, 2.0, 0.0], dtype=torch.float64)
    eye = torch.eye(4).double()
    want = torch.stack(
        [
            mean.flatten() + cov @ torch.linalg.solve(cov + s**2 * eye, (v - mean).flatten())
            for v, s in zip(y, sigma)
        ]
    )
    assert torch.allclose(GaussianDenoiser(mean, cov)(y, sigma).flatten(1), want)
    var = cov.diagonal().view(1, 2, 2)
    assert torch.allclose(
        GaussianDenoiser(mean, var)(y, sigma),
        GaussianDenoiser(mean, cov.diagonal().diag())(y, sigma),
    )
    assert torch.equal(GaussianDenoiser(mean, 0 * var)(y, 0.0), mean.expand_as(y))  # 0/0 is no nan


def test_blind_gaussian_finds_sigma():
    var = torch.zeros(1, 32, 32)
    var[0, 0, :4] = 1.0
    for v in (var, var.flatten().diag()):
        told, own = (
            GaussianDenoiser(torch.zeros(1, 32, 32), v),
            GaussianDenoiser(torch.zeros(1, 32, 32), v, blind=True),
        )
        y = var.sqrt() * randn(3, 1, 32, 32) + torch.tensor([0.1, 0.5, 2.0]).view(
            -1, 1, 1, 1
        ) * randn(3, 1, 32, 32, seed=1)
        assert torch.allclose(own(y), told(y, torch.tensor([0.1, 0.5, 2.0])), atol=0.1)
        assert torch.allclose(own(y)[:1], own(y[:1]), atol=1e-6)


def test_fitted_linear_denoiser_reaches_the_minimum_on_gaussian_data():
    d = 64
    basis, lam = torch.linalg.qr(randn(d, d))[0], torch.logspace(-1, -4, d)
    draw = lambda n, seed: (
        (0.5 + 0.1 * (randn(n, d, seed=seed) * lam.sqrt()) @ basis.T).view(n, 1, 8, 8).clamp(0, 1)
    )
    D, test = GaussianDenoiser.fit(draw(4000, 1)), draw(1000, 2)
    for s in (0.1, 0.25, 0.5):
        mse = (D(test + s * randn(*test.shape, seed=3), s) - test).pow(2).sum((1, 2, 3)).mean()
        assert abs(mse / (0.01 * lam * s**2 / (0.01 * lam + s**2)).sum() - 1) < 0.05


def test_fit_with_fewer_images_than_pixels_is_shrunk():
    train, test = rand(40, 1, 8, 8), rand(200, 1, 8, 8, seed=1)
    D = GaussianDenoiser.fit(train)
    assert D.rest > 0 and (D(test + 0.3 * randn(*test.shape), 0.3) - test).pow(2).mean() < 1.1 * (
        1 / 12
    ) * 0.09 / (1 / 12 + 0.09)
