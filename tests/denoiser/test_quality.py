"PSNR and the noise level of the residual"

import numpy as np
import pytest
import torch
from torch import nn

from denoise_study.denoiser import Denoiser, GaussianDenoiser, plot_psnr, psnr_curve, psnr_gain
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


def test_gain_is_of_pairs():
    hard = randn(300).exp()
    twice = psnr_gain(hard, 2 * hard)  # whatever images are drawn: the same ratio
    assert [twice.value, twice.low, twice.high] == pytest.approx([10 * np.log10(2)] * 3)
    assert twice.n == 300 and twice.unit == "images"

    ours, theirs = hard * (0.1 * randn(300, seed=1)).exp(), hard * (0.1 * randn(300, seed=2)).exp()
    gain, loss = psnr_gain(ours, theirs), psnr_gain(theirs, ours)
    assert [gain.value, gain.low, gain.high] == pytest.approx([-loss.value, -loss.high, -loss.low])
    ratio = (theirs.double().mean() / ours.double().mean()).item()
    assert gain.value == pytest.approx(10 * np.log10(ratio))


def test_gain_agrees_with_the_delta_method():
    "The spread of a log ratio of means, to first order"
    ours = randn(2000).exp()
    theirs = ours * (0.3 * randn(2000, seed=1)).exp()
    influence = theirs.double() / theirs.mean() - ours.double() / ours.mean()
    half = 1.96 * 10 / np.log(10) * influence.std().item() / 2000**0.5
    gain = psnr_gain(ours, theirs, n_boot=4000)
    assert gain.high - gain.low == pytest.approx(2 * half, rel=0.08)


def test_a_curve_says_how_much_better_each_is():
    x = rand(12, 1, 8, 8)
    weak, strong = (GaussianDenoiser(x.mean(0), v * x.var(0)) for v in (0.01, 1.0))
    t = psnr_curve(dict(weak=weak, strong=strong), x, (0.1, 0.5), progress=False, than="weak")
    at = t.set_index(["denoiser", "sigma"])
    assert at.loc["weak"].gain.isna().all()
    difference = at.loc["strong"].psnr - at.loc["weak"].psnr
    assert np.allclose(at.loc["strong"].gain, difference, atol=1e-5)
    assert (at.loc["strong"].gain_low < difference).all()
    assert (difference < at.loc["strong"].gain_high).all()
    for batch in (5, 12):
        again = psnr_curve(
            dict(weak=weak, strong=strong), x, (0.1, 0.5), bs=batch, progress=False, than="weak"
        )
        assert np.allclose(again.gain_low.dropna(), t.gain_low.dropna(), atol=1e-4)


@pytest.mark.parametrize(
    "bad, message",
    [
        (lambda D, x: psnr_curve(D, x, than="other"), "than: .*got 'other'"),
        (lambda D, x: psnr_gain(torch.ones(3), torch.ones(4)), r"mse, mse0: .*\(3,\) and \(4,\)"),
        (lambda D, x: psnr_gain(torch.ones(3, 2), torch.ones(3, 2)), "mse, mse0: an error"),
        (lambda D, x: psnr_gain(torch.zeros(3), torch.ones(3)), "mse"),
    ],
)
def test_gains_that_are_refused(bad, message):
    x = rand(4, 1, 8, 8)
    with pytest.raises(ValueError, match=message):
        bad(GaussianDenoiser(x.mean(0), x.var(0)), x)


def test_residual_sigma_is_low_by_the_error():
    lam, s = 0.0625, 0.3
    D = GaussianDenoiser(torch.full((1, 8, 8), 0.5), torch.full((1, 8, 8), lam))
    y = 0.5 + lam**0.5 * randn(4000, 1, 8, 8) + s * randn(4000, 1, 8, 8, seed=1)
    assert residual_sigma(D, y, s).pow(2).mean() == pytest.approx(
        s**2 - lam * s**2 / (lam + s**2), rel=0.01
    )
    two = torch.cat([y[:1], 100 * y[1:2]])  # each image has its own
    assert torch.allclose(residual_sigma(D, two, s)[:1], residual_sigma(D, two[:1], s))
