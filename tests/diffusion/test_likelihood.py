"Likelihood of grey levels: the far tails, the prior, the histogram, and images that have none"

import math

import numpy as np
import pytest
import torch
from helpers import close, HO, images

from denoise_study.diffusion import check_grey_levels, discretized_log_likelihood, histogram_bits
from denoise_study.diffusion import normal_kl, prior_bits


def test_likelihood_reaches_far_tails():
    level, std = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([1e-3]).log()
    logp = discretized_log_likelihood(level, torch.tensor(0.3), std)
    assert torch.isfinite(logp).all()
    x = torch.tensor([0.2], requires_grad=True)
    discretized_log_likelihood(torch.tensor([3 / 255]), x, torch.tensor([-4.0])).backward()
    assert torch.isfinite(x.grad).all() and x.grad < 0


@pytest.mark.parametrize("mean,std", [(0.0, 0.001), (0.5, 0.007), (-1.0, 0.05), (3.0, 1.0)])
def test_probabilities_of_all_levels_sum_to_one(mean, std):
    levels = 2 * torch.arange(256).double() / 255 - 1
    log_std = torch.tensor(std).double().log()
    logp = discretized_log_likelihood(levels, torch.tensor(mean).double(), log_std)
    close(logp.exp().sum(), 1.0, atol=1e-12)


def test_prior_is_the_divergence_from_noise():
    "The same number by the general formula, where that has digits left"
    x0, ab = images(3), HO.alpha_bar[300]
    kl = normal_kl(ab.sqrt() * x0.double(), torch.log1p(-ab), 0.0, 0.0).mean((1, 2, 3))
    close(prior_bits(x0, ab), kl / math.log(2), rtol=1e-9)
    close(prior_bits(torch.ones(1, 1, 16, 16), HO.alpha_bar[-1]), [2.911e-5], atol=1e-8)


def test_only_grey_levels_are_accepted():
    check_grey_levels(2 * torch.arange(256) / 255 - 1)
    for x in (images(2), torch.tensor([1 / 255 - 1])):
        with pytest.raises(ValueError, match="x0: pixels must lie on the 8-bit grid"):
            check_grey_levels(x)


def test_histogram_bits():
    "Two equally frequent levels cost one bit; a level that was never seen, log2 of all counts"
    train = torch.tensor([0, 255] * 5000, dtype=torch.uint8).view(-1, 1, 1, 2)
    test = torch.tensor([[[[0, 255]]], [[[7, 7]]]], dtype=torch.uint8)
    bits = histogram_bits(train, test)
    assert abs(float(bits[0]) - 1) < 0.05
    assert abs(float(bits[1]) - np.log2(10_000 + 256)) < 1e-6
