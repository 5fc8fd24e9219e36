"PSNR and the noise level of the residual"

import numpy as np
import pytest
import torch
from torch import nn

from denoise_study.denoiser import Denoiser, GaussianDenoiser, plot_psnr, psnr_curve
from denoise_study.denoiser import residual_sigma
from helpers import rand, randn


def test_psnr_curve_gives_all_denoisers_the_same_noise():
    x, seen = rand(10, 1, 8, 8), []

    class Spy(Denoiser):
        def _denoise(self, x, sigma):
            seen.append(x)
            return x

    a, b = Spy(nn.Identity()), Spy(nn.Identity())
    t = psnr_curve(dict(a=a, b=b), x, (0.1, 0.5), progress=False)
    assert (
        torch.equal(seen[0], seen[1])
        and torch.equal(seen[2], seen[3])
        and not torch.allclose((seen[0] - x) * 5, seen[2] - x)
    )
    assert (
        np.allclose(t.psnr_in, t.psnr)
        and np.allclose(t.sigma_hat, 0)
        and (t.low <= t.psnr).all()
        and (t.psnr <= t.high).all()
    )
    assert np.allclose(t.psnr_in, -20 * np.log10(t.sigma), atol=0.6) and set(t.n) == {10}
    small = psnr_curve(dict(a=a, b=b), x, (0.1, 0.5), bs=3, progress=False)
    assert np.allclose(
        small[["psnr", "low", "high", "mse"]], t[["psnr", "low", "high", "mse"]]
    )  # whatever the batches
    assert not np.allclose(
        psnr_curve(a, x, (0.1, 0.5), seed=1, progress=False).psnr, t[t.denoiser == "a"].psnr
    )
    assert len(plot_psnr(t).lines) == 3


def test_residual_sigma_is_low_by_the_error():
    lam, s = 0.0625, 0.3
    D = GaussianDenoiser(torch.full((1, 8, 8), 0.5), torch.full((1, 8, 8), lam))
    y = 0.5 + lam**0.5 * randn(4000, 1, 8, 8) + s * randn(4000, 1, 8, 8, seed=1)
    assert residual_sigma(D, y, s).pow(2).mean() == pytest.approx(
        s**2 - lam * s**2 / (lam + s**2), rel=0.01
    )
    two = torch.cat([y[:1], 100 * y[1:2]])  # each image has its own
    assert torch.allclose(residual_sigma(D, two, s)[:1], residual_sigma(D, two[:1], s))
