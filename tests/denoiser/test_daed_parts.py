"The two networks of a DAED behind the contract"

import pytest
import torch

from denoise_study.core import untrained
from denoise_study.daed import DAED
from denoise_study.denoiser import denoiser, GaussianDenoiser
from denoise_study.diffusion import GaussianNet, Schedule
from helpers import rand
from helpers_denoiser import Exact, unet


def test_daed_parts():
    full = Schedule.linear(100)
    merged = full.merge_first(10)
    m = DAED(GaussianNet(full, 0.25), Exact(full, 0.25, "x0"), merged, (1, 4, 4), dae_pred="x0")
    exact, x = (
        GaussianDenoiser(torch.full((1, 4, 4), 0.5), torch.full((1, 4, 4), 0.0625)),
        2 * rand(4, 1, 4, 4) - 0.5,
    )
    s = ((1 - merged.alpha_bar) / merged.alpha_bar).sqrt() / 2
    dae, chain, generator = (denoiser(m, part=p, clip=False) for p in ("dae", "chain", "generator"))
    level = s[1].item()
    assert dae.sigmas == pytest.approx((level, level)) and torch.allclose(
        dae(x), exact(x, level), atol=1e-5
    )
    assert torch.allclose(dae(x, level), dae(x)) and not dae.blind
    sigma = s[[1, 2, 30, 91]].float()
    assert torch.allclose(chain(x, sigma), exact(x, sigma), atol=2e-5)
    assert torch.allclose(generator(x, s[40].item()), exact(x, s[40].item()), atol=1e-5)
    clipped, x1 = denoiser(m), merged.q_sample(2 * x - 1, 1, torch.zeros_like(x))
    assert torch.allclose(clipped(x), (m.denoise(x1) + 1) / 2, atol=1e-6)
    with pytest.raises(ValueError, match="sigma: .*alone"):
        dae(x, 2 * level)


def test_daed_chain_reads_one_network_at_a_time():
    full = Schedule.linear(100)
    m = DAED(unet(), unet(), full.merge_first(10), (1, 8, 8))
    chain, x = denoiser(m, part="chain"), rand(2, 1, 8, 8)
    low, high = chain.parts[0].sigmas[0], 1.0
    with torch.no_grad():
        assert torch.equal(chain.phi(x, low), denoiser(m).phi(x)) and torch.equal(
            chain.phi(x, high), denoiser(m, part="generator").phi(x, high)
        )
    with pytest.raises(ValueError, match="one at a time"):
        chain.phi(x, torch.tensor([low, high]))
    fresh = untrained(chain)
    assert (
        fresh.name != chain.name and fresh.net.dae is fresh.parts[0].net
    )  # the parts follow the copy
