"Samplers against closed recursions"

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from denoise_study.denoiser import ascend, Denoiser, descend, GaussianDenoiser, MixtureDenoiser
from denoise_study.denoiser import noise_levels, sample
from helpers import gen, rand, randn
from helpers_denoiser import blind, gens


LAM = np.array([4, 1, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01])


def recursion(h0, beta, growing, end=0.01):
    "Noise estimate at every step and final variance over lam: 8 directions of data, 504 empty"
    L, v, noise, sigma = np.r_[LAM, np.zeros(504)], np.ones(512), 1.0, []
    while True:
        t = len(sigma) + 1
        h, k = h0 * t / (1 + h0 * (t - 1)) if growing else h0, noise / (L + noise)
        sigma.append((v * k**2).mean() ** 0.5)
        if sigma[-1] <= end:
            return np.array(sigma), (v * (1 - k) ** 2)[:8] / LAM
        gamma2 = ((1 - beta * h) ** 2 - (1 - h) ** 2) * sigma[-1] ** 2
        v, noise = v * (1 - h * k) ** 2 + gamma2, noise * (1 - h) ** 2 + gamma2


def world(blind=True):
    var = torch.zeros(1, 16, 32)
    var[0, 0, :8] = torch.tensor(LAM)
    return GaussianDenoiser(torch.zeros(1, 16, 32), var, blind)


def data_only():
    return GaussianDenoiser(torch.zeros(1, 1, 8), torch.tensor(LAM).float().view(1, 1, 8))


def ratios(x):
    return (x[:, 0, 0, :8].pow(2).mean(0) / torch.tensor(LAM)).numpy()


TABLE = {
    (0.01, 1.0, True): (33, [0.20, 0.49, 0.64, 0.76, 0.85, 0.88, 0.90, 0.90]),
    (0.01, 0.5, True): (48, [0.34, 0.70, 0.82, 0.87, 0.89, 0.88, 0.87, 0.86]),
    (0.01, 0.1, True): (121, [0.76, 0.82, 0.80, 0.78, 0.77, 0.76, 0.75, 0.74]),
    (0.05, 0.1, False): (832, [0.86, 0.97, 0.98, 0.98, 0.97, 0.97, 0.97, 0.97]),
}


@pytest.mark.parametrize("setting", list(TABLE)[:3], ids=str)
def test_ascent_follows_its_recursion(setting):
    h0, beta, growing = setting
    steps = list(ascend(world(), randn(600, 1, 16, 32), gen(1), h0, beta, 0.01, growing))
    sigma, variance = recursion(*setting)
    n = int(0.8 * len(sigma))
    # 1% where the fluctuations of single images do not add up over a hundred steps
    assert np.allclose(
        [s.sigma.mean() for s in steps[:n]], sigma[:n], rtol=0.01 if beta >= 0.5 else 0.05
    )
    taken = 1 + sum(s.active.float().mean().item() for s in steps)
    assert abs(taken - TABLE[setting][0]) < 0.02 * TABLE[setting][0]
    assert np.allclose(ratios(steps[-1].x), variance, rtol=0.22)  # 600 samples: 6% each


@pytest.mark.parametrize("setting", TABLE, ids=str)
def test_recursion_gives_the_known_table(setting):
    sigma, variance = recursion(*setting)
    assert len(sigma) == TABLE[setting][0] and np.abs(variance - TABLE[setting][1]).max() < 0.0125


def test_beta_1_adds_no_noise():
    D, x = world(), randn(4, 1, 16, 32)
    a, b = ([s.x for s in ascend(D, x, gen(seed), beta=1.0)][-1] for seed in (1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(
        *([s.x for s in ascend(D, x, gen(seed), beta=0.9)][-1] for seed in (1, 2))
    )


@pytest.mark.parametrize(
    "beta, growing, end, n",
    [
        (0.5, True, 0.01, 47),
        (0.1, True, 0.01, 127),
        (0.05, True, 0.01, 200),
        (0.01, True, 0.01, 661),
        (0.5, False, 0.05, 598),
        (0.1, False, 0.05, 2995),
    ],
)
def test_iteration_counts_of_the_rule(beta, growing, end, n):
    "Told the intended level, it takes the nominal number of steps, and one call that finishes"
    D = GaussianDenoiser(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    assert len(list(ascend(D, torch.zeros(1, 1, 1, 1), gen(), 0.01, beta, end, growing))) == n + 1


def test_last_step_denoises():
    x = list(ascend(world(), randn(20, 1, 16, 32), gen(), sigma_end=0.1))[-1].x
    assert (x[:, :, 1:] == 0).all() and (x[:, :, 0, 8:] == 0).all()  # empty directions
    for rule in ("ancestral", "renoise"):
        assert (
            list(descend(world(), randn(3, 1, 16, 32), gen(), [1.0, 0.5, 0.1], rule))[-1].x[
                :, :, 1:
            ]
            == 0
        ).all()


@pytest.mark.parametrize(
    "D", [world(), world(False), blind()], ids=["blind oracle", "told oracle", "network"]
)
def test_images_of_a_batch_do_not_influence_each_other(D):
    shape = (8, *D.shape)
    start = randn(*shape) * torch.linspace(0.5, 1, 8).view(-1, 1, 1, 1)
    run = lambda i: [
        s.x for s in ascend(D, start[i], gens(i), h0=0.05, sigma_end=0.1, max_steps=60)
    ][-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the untrained network does not get there
        whole = run(list(range(8)))
        for i in (0, 5):
            assert torch.allclose(run([i])[0], whole[i], atol=2e-5)
    down = lambda i: [s.x for s in descend(D, start[i], gens(i), [1.0, 0.6, 0.3])][-1]
    assert torch.allclose(down([5])[0], down(list(range(8)))[5], atol=2e-5)


def test_finished_images_stay_as_they_are():
    start = randn(6, 1, 16, 32) * torch.tensor([0.05, 0.3, 1.0, 1.0, 1.0, 1.0]).view(-1, 1, 1, 1)
    guided = []

    def guide(x, sigma):
        guided.append((x.clone(), sigma.clone()))
        return x + 100 * (sigma == 0).view(
            -1, 1, 1, 1
        )  # what is done to finished images does not count

    steps = list(ascend(world(), start, gen(), sigma_end=0.2, guide=guide))
    ends = torch.stack([s.active for s in steps]).sum(0)
    assert ends[0] == 0 and 0 < ends[1] < ends[2:].min()  # each image has its own end
    for s in steps[1:]:
        assert torch.equal(s.x[0], steps[0].x[0])
    assert (
        guided[0][1].eq(1).all()
        and guided[1][1][0] == 0
        and torch.allclose(guided[1][1][2:], steps[0].sigma[2:])
    )
    single = list(ascend(world(), start, gen(), sigma_end=0.2))
    assert torch.allclose(
        single[-1].x, steps[-1].x
    )  # noise for the others does not depend on who is finished


def test_noise_from_one_generator_does_not_depend_on_who_is_finished():
    "The last image, beside one that finishes at once and beside one that does not"
    start = randn(3, 1, 16, 32)
    run = lambda first: [
        s.x
        for s in ascend(
            world(),
            start * torch.tensor([first, 1.0, 1.0]).view(-1, 1, 1, 1),
            gen(1),
            sigma_end=0.2,
        )
    ][-1]
    assert torch.allclose(run(0.05)[2], run(1.0)[2], atol=1e-5)


def test_cap_and_divergence_end_with_a_warning():
    with pytest.warns(UserWarning, match="2 images are still above sigma_end after max_steps=5"):
        steps = list(ascend(world(), randn(2, 1, 16, 32), gen(), max_steps=5))
    assert (
        len(steps) == 5 and (steps[-1].x[:, :, 1:] == 0).all() and not steps[-1].active.any()
    )  # denoised all the same

    class Bad(Denoiser):
        def _denoise(self, x, sigma):
            return 3 * x if x.isfinite().all() else x

    with pytest.warns(UserWarning, match="noisier than twice the start"):
        assert len(list(ascend(Bad(nn.Identity()), randn(2, 1, 4, 4), gen(), h0=0.5))) < 10

    class Nan(Denoiser):
        def _denoise(self, x, sigma):
            return x * float("nan")

    with pytest.warns(UserWarning, match="1 images are noisier"):
        assert len(list(ascend(Nan(nn.Identity()), randn(1, 1, 4, 4), gen()))) == 1


def test_ancestral_rule_gives_the_data_back():
    x = [
        s.x
        for s in descend(
            data_only(), 10 * randn(4000, 1, 1, 8), gen(1), noise_levels(10, 0.01, 150)
        )
    ][-1]
    assert np.abs(ratios(x) - 0.98).max() < 0.07 and abs(ratios(x).mean() - 0.98) < 0.025


def test_renoising_halves_the_variance():
    x = [
        s.x
        for s in descend(
            data_only(), torch.zeros(4000, 1, 1, 8), gen(1), np.linspace(1, 0.03, 100), "renoise"
        )
    ][-1]
    assert np.abs(ratios(x) - [0.49, 0.49, 0.48, 0.48, 0.47, 0.47, 0.45, 0.44]).max() < 0.04


def test_a_narrow_start_loses_modes():
    "Weights (.5,.3,.2) of a mixture come back from a wide start, and not from sigma_0 = .3"
    means = torch.tensor([-0.5, 0.3, 1.5]).view(3, 1, 1, 1)
    D = MixtureDenoiser(means, 1e-4, torch.tensor([0.5, 0.3, 0.2]))

    def weights(sigma):
        x = [
            s.x
            for s in descend(
                D, sigma * randn(4000, 1, 1, 1), gen(1), noise_levels(sigma, 0.01, 100)
            )
        ][-1]
        return (
            torch.bincount((x.view(-1, 1) - means.view(1, 3)).abs().argmin(1), minlength=3) / 4000
        )

    wide, narrow = weights(10.0), weights(0.3)
    assert (wide - torch.tensor([0.5, 0.3, 0.2])).abs().max() < 0.03 and narrow[2] < 0.1


def test_guide_is_applied_before_every_denoising():
    seen = []

    def guide(x, sigma):
        seen.append(sigma.clone())
        return torch.full_like(x, 0.25)

    D = GaussianDenoiser(torch.zeros(1, 2, 2), torch.ones(1, 2, 2))
    x = [s.x for s in descend(D, torch.zeros(2, 1, 2, 2), gen(), [1.0, 0.5], guide=guide)][-1]
    assert torch.allclose(x, torch.full_like(x, 0.25 / 1.25)) and [s[0].item() for s in seen] == [
        1.0,
        0.5,
    ]


@pytest.mark.parametrize(
    "kw",
    [
        dict(),
        dict(method="descend"),
        dict(method="descend", rule="renoise", sigmas=[1.0, 0.5, 0.2]),
    ],
    ids=str,
)
def test_sample_depends_on_seed_and_place_alone(kw):
    D = world()
    a = sample(D, 5, bs=2, clip=False, progress=False, **kw)
    assert torch.allclose(
        a[:3], sample(D, 3, clip=False, progress=False, **kw), atol=1e-6
    ) and a.shape == (5, 1, 16, 32)
    assert not torch.allclose(a, sample(D, 5, seed=1, clip=False, progress=False, **kw))
    assert sample(D, 2, progress=False, **kw).min() >= 0


@pytest.mark.parametrize(
    "levels",
    [
        np.array([1.0, 0.5, 0.2]),
        torch.tensor([1.0, 0.5, 0.2]),
        (1.0, 0.5, 0.2),
        iter([1.0, 0.5, 0.2]),
    ],
    ids=["array", "tensor", "tuple", "iterator"],
)
def test_levels_in_any_form(levels):
    down = lambda sigmas: sample(world(), 2, "descend", sigmas=sigmas, progress=False)
    assert torch.allclose(down(levels), down([1.0, 0.5, 0.2]), atol=1e-6)


def test_samplers_leave_gradients_and_mode_alone():
    D = blind()
    D.train()
    sample(D, 1, "descend", sigmas=[1.0, 0.5], progress=False)
    assert D.training and torch.is_grad_enabled()
    walk = ascend(D.eval(), rand(1, 1, 8, 8).requires_grad_(), gen())
    next(walk)
    assert torch.is_grad_enabled()
