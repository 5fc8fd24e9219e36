"What every denoiser does, whatever is inside"

import numpy as np
import pytest
import torch
from torch import nn

from denoise_study.core import untrained
from denoise_study.denoiser import Blind, denoiser, GaussianDenoiser
from denoise_study.diffusion import DDGM, Schedule
from helpers import rand, randn
from helpers_denoiser import blind, Tiny, unet


def test_sigma_forms_agree():
    D, y = GaussianDenoiser(torch.zeros(1, 2, 2), torch.ones(1, 2, 2)), randn(3, 1, 2, 2)
    want = y / 1.25
    for s in (0.5, torch.tensor(0.5), torch.full((3,), 0.5), np.float64(0.5)):
        assert torch.allclose(D(y, s), want)


def test_blind_denoiser_ignores_sigma_and_is_in_evaluation_mode():
    D, x = blind(), rand(2, 1, 8, 8)
    assert (
        torch.equal(D(x), D(x, 0.7))
        and torch.equal(D.phi(x), D.averages(x, 0.2)["mid"])
        and not D.net.training
    )
    assert D.multiple == 8 and D.phi(x).shape == (2, 22) and D.maps(x)["mid"].shape == (2, 22, 1, 1)
    assert denoiser(D) is D and denoiser(Blind(D.net, (1, 16, 16), (0.0, 2.0))).sigmas == (0.0, 2.0)


def test_name_follows_the_weights_and_nothing_else():
    D = blind()
    assert (
        D.name
        == blind().name
        == denoiser(Blind(D.net, (1, 16, 16), (0.0, 2.0))).name
        != blind(1).name
    )
    assert D.name.startswith("BlindUNet-") and GaussianDenoiser(
        torch.zeros(1, 2, 2), torch.ones(1, 2, 2)
    ).name.startswith("GaussianDenoiser-0-")
    tiny = Tiny()
    assert denoiser(tiny, predicts="clean").name != denoiser(tiny, predicts="residual").name
    before = D.name
    with torch.no_grad():
        D.net.out.bias += 1e-3
    assert D.name != before


def test_phi_is_differentiable_with_frozen_weights():
    for D, sigma in (
        (blind(), None),
        (denoiser(DDGM(unet(), Schedule.linear(50), (1, 8, 8))), 0.3),
        (denoiser(Tiny(), predicts="residual", taps=dict(mid="a")), None),
    ):
        D.requires_grad_(False)
        x, v = rand(1, 1, 8, 8).requires_grad_(), randn(1, 1, 8, 8, seed=1)
        slope = (torch.autograd.grad(D.phi(x, sigma).sum(), x)[0] * v).sum()
        with torch.no_grad():
            wide = (D.phi(x + 5e-4 * v, sigma).sum() - D.phi(x - 5e-4 * v, sigma).sum()) / 1e-3
        assert slope.abs() > 0 and torch.isclose(slope, wide, rtol=0.05)


def test_untrained_control():
    models = [
        blind(),
        denoiser(DDGM(unet(), Schedule.linear(50), (1, 8, 8))),
        denoiser(Tiny(), predicts="residual"),
    ]
    for D in models:
        with torch.no_grad():
            for p in D.parameters():
                p += 1
        name, state = D.name, torch.get_rng_state()
        a, b, c = untrained(D, 1), untrained(D, 1), untrained(D, 2)
        assert (
            a.name == b.name != c.name
            and D.name == name != a.name
            and torch.equal(torch.get_rng_state(), state)
        )
        assert a.taps == D.taps and a.sigmas == D.sigmas and type(a) is type(D)
        assert all(
            (p - q).abs().max() > 0.01 for p, q in zip(a.parameters(), D.parameters())
        )  # not one was forgotten


def test_fresh_weights_where_the_network_starts_at_zero():
    "A fresh diffusion network returns zeros; with `zeros`, noise of that size instead"
    m, x = DDGM(unet(), Schedule.linear(50), (1, 8, 8)), rand(2, 1, 8, 8)
    for p in m.parameters():
        nn.init.constant_(p, 0.5)
    blank, loud = untrained(m, 1), untrained(m, 1, zeros=0.02)
    assert isinstance(blank, DDGM) and blank.net(x, torch.zeros(2)).abs().max() == 0
    assert loud.net(x, torch.zeros(2)).abs().max() > 1e-3 and all(
        p.any() for p in loud.parameters()
    )
    same = [
        k for k, p in loud.named_parameters() if torch.equal(p, dict(blank.named_parameters())[k])
    ]
    assert same and all(
        dict(blank.named_parameters())[k].any() for k in same
    )  # only what was zero differs


def test_control_without_a_way_to_start_anew():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.w * x

    with pytest.raises(ValueError, match="D: Bare has parameters.*reset_parameters"):
        untrained(denoiser(Bare(), predicts="clean"))
