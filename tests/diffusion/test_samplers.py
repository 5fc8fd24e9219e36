"Whole chains against diffusers, step by step with the same noise"

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from helpers import close, gen
from helpers_ddgm import Spy
from torch import nn

from denoise_study.diffusion import ancestral, DDGM, ddim, Schedule, UNet


@pytest.mark.parametrize("var,theirs", [("large", "fixed_large"), ("small", "fixed_small")])
@pytest.mark.parametrize("clip", [False, True])
def test_ancestral_chain_equals_diffusers(var, theirs, clip):
    "A whole chain of 60 steps with the same noise"
    model = DDGM(Spy(), Schedule.linear(60), shape=(1, 4, 4), var=var)
    d = DDPMScheduler(
        60,
        beta_start=1e-4 * 1000 / 60,
        beta_end=0.02 * 1000 / 60,
        variance_type=theirs,
        clip_sample=clip,
    )
    xt = other = torch.randn(3, 1, 4, 4, generator=gen())
    ours, other_gen = ancestral(model, xt, gen(1), clip=clip), gen(1)
    with torch.no_grad():
        for t in range(60, 0, -1):
            at, xt, _ = next(ours)
            eps = model.net(other, torch.tensor([t - 1]))
            other = d.step(eps, t - 1, other, generator=other_gen).prev_sample
            # diffusers adds noise of its fixed-large variance at beta_1 where Ho et al. clip it to
            # the posterior's, but none at its step 0
            assert at == t - 1
            close(xt, other, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_chain_equals_diffusers(eta):
    model = DDGM(Spy(), Schedule.linear(1000), shape=(1, 4, 4)).respaced("ddim50")
    d = DDIMScheduler(1000, clip_sample=True, set_alpha_to_one=True)
    d.set_timesteps(50)
    xt = other = torch.randn(3, 1, 4, 4, generator=gen())
    other_gen = gen(1)
    with torch.no_grad():
        for (_, xt, _), i in zip(ddim(model, xt, gen(1), eta=eta), d.timesteps):
            other = d.step(
                model.net(other, i[None]),
                i,
                other,
                eta=eta,
                generator=other_gen,
                use_clipped_model_output=True,
            ).prev_sample
            close(xt, other, rtol=5e-3, atol=5e-3)


def test_last_step_returns_the_estimate_and_adds_nothing():
    model = DDGM(Spy(), Schedule.linear(30), shape=(1, 4, 4))
    xt = torch.randn(2, 1, 4, 4, generator=gen())
    for walk in (ancestral, ddim):
        ((_, x, x0),) = walk(model, xt, gen(), start=1)
        close(x, x0, atol=1e-6)


def test_images_of_a_batch_do_not_touch_each_other():
    torch.manual_seed(0)
    net = UNet(channels=1, width=32, mult=(1, 2), n_blocks=1, attn=(1, 2))
    for p in net.parameters():
        nn.init.normal_(p, std=0.05)
    model = DDGM(net, Schedule.linear(50), shape=(1, 8, 8)).eval()
    xt = torch.randn(4, 1, 8, 8, generator=gen())

    def last(x):
        return [x for _, x, _ in ddim(model, x, gen(), start=10)][-1]

    with torch.no_grad():
        together = last(xt)
        alone = torch.cat([last(x[None]) for x in xt])
    close(together, alone, atol=1e-5)
