"The best linear denoiser: a regression, a chain that is one jump, directions without variance"

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import gen
from helpers_denoiserep import DDPM, randn, rel
from denoise_study.denoiserep import compose, denoise_rep, InputMoments, optimal_denoiser
from denoise_study.denoiserep import noised_moments, step_affine, whitening


def test_chain_and_collapse():
    "Composition acts in the order given; with the best denoisers the chain is one jump"
    S, mean = torch.cov(randn(6, 500)), randn(6, seed=1)
    second, x, steps = S + torch.outer(mean, mean), randn(20, 6, seed=2), []
    for t in range(30, 0, -1):
        W, b, _ = optimal_denoiser(second, DDPM, t, mean)
        steps.append(step_affine(DDPM, t, W, b))
        if t == 30:
            shot = (x - DDPM.noise[30] * (x @ W.T + b)) / DDPM.signal[30]
    y = x
    for A, c in steps:
        y = y @ A.T + c
    A, c = compose(*steps)
    assert rel(x @ A.T + c, y) < 1e-12 and rel(y, shot) < 1e-12
    A, c = compose(
        *reversed(
            [(randn(6, 6, seed=k), None if k == 1 else randn(6, seed=k + 9)) for k in range(3)]
        )
    )
    y = x @ randn(6, 6, seed=2).T + randn(6, seed=11)
    assert rel(x @ A.T + c, y @ randn(6, 6, seed=1).T @ randn(6, 6).T + randn(6, seed=9)) < 1e-12
    assert compose((torch.eye(2), None))[1] is None


def test_optimal_denoiser_is_the_regression():
    x, t = randn(3000, 4) @ randn(4, 4, seed=1) + 1, 200
    m = InputMoments().update(x[:1000, None]).update(x[1000:, None])
    assert torch.allclose(m.second[0], x.T @ x / 3000) and torch.allclose(m.mean[0], x.mean(0))
    xs, eps = x.repeat(60, 1), randn(180000, 4, seed=2)
    xt = DDPM.signal[t] * xs + DDPM.noise[t] * eps
    for mean, design in ((None, xt), (m.mean, torch.cat([xt, torch.ones(len(xt), 1)], 1))):
        W, b, floor = optimal_denoiser(m.second, DDPM, t, mean)
        fit = torch.linalg.lstsq(design, eps).solution.T
        assert rel(W[0], fit[:, :4]) < 0.03 and (b is None or rel(b[0], fit[:, 4]) < 0.05)
        pred = xt @ W[0].T + (0 if b is None else b[0])
        assert float((eps - pred).square().mean()) == pytest.approx(floor, rel=0.01)


def test_a_large_change_of_weight_in_a_direction_without_variance():
    "Layer norm: the best W_D there is 1/sqrt(1-abar); the weight changes, the output does not"
    x = F.layer_norm(torch.randn(4000, 16, generator=gen()), (16,))
    net = nn.Sequential(nn.Linear(16, 8, bias=False))
    dr = denoise_rep(net, example=x, t=2)
    dr.solve(x)
    W_D = dr.slots["0"].denoiser.weight[0].detach().double()
    ones = torch.ones(16).double() / 4
    assert float(ones @ W_D @ ones) == pytest.approx(1 / float(DDPM.noise[2]), rel=1e-3)
    W, y = net[0].parametrizations.weight.original.detach().clone(), None
    with torch.no_grad(), dr.disabled():
        y = net(x)
    fused = dr.fuse()
    change, effect = rel(fused[0].weight, W), rel(fused(x), y)
    assert change > 100 * effect and effect < 1e-3


def test_whitened_features_are_of_one_size_whatever_their_spectrum():
    "Groups of their own; directions without any variance; the best denoiser is the same"
    x = randn(500, 2, 4) * torch.tensor([1.0, 0.1, 1e-3, 0], dtype=torch.float64)
    second = InputMoments().update(x).second
    P = whitening(second, DDPM, 20)
    xt = noised_moments(second, DDPM, 20)
    eye = torch.eye(4).double().expand(2, 4, 4)
    assert torch.allclose(P @ xt @ P, eye, atol=1e-9) and torch.allclose(P, P.mT)
    best, _, _ = optimal_denoiser(second, DDPM, 20)
    inside = best @ torch.linalg.inv(P)
    assert torch.allclose(inside, float(DDPM.noise[20]) * P) and inside.abs().max() <= 1 + 1e-9
