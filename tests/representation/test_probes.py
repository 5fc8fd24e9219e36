"Channel averages against single images and draws, and how sparse they are"

import json
import math
import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from helpers import blind_denoiser, pictures, randn
from helpers_probes import read
from denoise_study.core import step_generator, untrained
from denoise_study.denoiser import denoiser, sigma_at
from denoise_study.diffusion import DDGM, Schedule, UNet
from denoise_study.representation import compare_representations, participation, plot_participation

torch.set_num_threads(1)
D = blind_denoiser()
X = pictures()
A = read(D, X)


def test_averages_are_those_of_single_images_and_draws():
    "Every image alone, every draw alone, with the documented noise"
    for i in 0, 7, 11:
        z = torch.empty(4, 1, 16, 16).normal_(generator=step_generator(0, i, "cpu", "probes"))
        for tap in "enc1", "mid", "dec2.in":
            with torch.no_grad():
                own = torch.stack(
                    [D.maps(X[i : i + 1] + 0.5 * o, 0.5, (tap,))[tap].mean((2, 3))[0] for o in z]
                )
            torch.testing.assert_close(A.taps[tap][i], own.mean(0), rtol=1e-4, atol=2e-8)


def test_draws_of_one_image_do_not_reach_another():
    "Two very different images give together what each gives alone"
    pair = torch.stack(
        [torch.zeros(1, 16, 16), (torch.arange(16) % 4 < 2).float().expand(1, 16, 16)]
    )
    both = read(D, pair).phi.x
    assert (both[0] - both[1]).norm() > 0.1 * both[0].norm()
    torch.testing.assert_close(both[:1], read(D, pair[:1]).phi.x, rtol=1e-4, atol=2e-8)


@pytest.mark.parametrize("bs", [1, 3, 7, 1000])
def test_batch_size_makes_no_difference(bs):
    other = read(D, X, bs=bs)  # 1 and 3 are fewer than the draws of one image
    for tap in D.taps:
        torch.testing.assert_close(other.taps[tap], A.taps[tap], rtol=1e-4, atol=2e-8)


def test_the_seed_decides_the_noise():
    assert torch.equal(read(D, X).phi.x, A.phi.x)
    assert not torch.equal(read(D, X, seed=1).phi.x, A.phi.x)


def test_every_tap_has_as_many_numbers_as_channels():
    sizes = {k: v.shape for k, v in A.taps.items()}
    assert tuple(sizes) == D.taps and all(
        n == 12 and A.taps[k].dtype == torch.float32 for k, (n, _) in sizes.items()
    )
    assert [sizes[k][1] for k in ("enc1", "enc2", "enc3", "mid", "dec3", "dec2", "dec1")] == [
        6,
        10,
        14,
        22,
        14,
        10,
        6,
    ]
    assert [sizes[k][1] for k in ("enc2.in", "mid.in", "dec3.in")] == [6, 14, 28]
    assert A.phi.dim == 22 and tuple(read(D, X, taps=("enc2",)).taps) == ("enc2",)


def test_outputs_are_rectified_and_pooling_keeps_means():
    for k in "enc1", "enc2", "enc3", "mid", "dec3", "dec2":
        assert A.taps[k].min() >= 0
    assert A.taps["dec3.in"].min() < 0  # the upward convolution has no ReLU
    for out, into in ("enc1", "enc2.in"), ("enc2", "enc3.in"), ("enc3", "mid.in"):
        assert (A.taps[out] - A.taps[into]).abs().max() < 1e-7 * A.taps[out].abs().max() * 10


def test_mode_and_gradients_are_left_alone():
    D.train()
    assert not read(D, X[:2]).phi.x.requires_grad and D.training
    D.eval()


def test_no_noise_is_a_warning_and_one_draw():
    with pytest.warns(UserWarning, match="collapses"):
        a = read(D, X, sigma=0.0)
    assert a.run["draws"] == 1
    with torch.no_grad():
        torch.testing.assert_close(a.phi.x, D.phi(X), rtol=1e-4, atol=2e-8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(D, X, sigma=0.01)


def test_participation_of_noise_is_that_of_its_distribution():
    z = randn(400, 2000).double()
    for v, value in (
        (z.relu(), 1 / math.pi),
        (z.abs(), 2 / math.pi),
        (stats.expon.rvs(size=(400, 2000), random_state=0), 0.5),
    ):
        assert participation(torch.as_tensor(v)).mean().item() == pytest.approx(value, abs=0.002)


def test_participation_formula_and_bounds():
    v = randn(5, 7, 3)
    for dim in 0, 1, -1:
        own = np.abs(v.numpy().astype(float)).sum(dim) ** 2 / (
            v.shape[dim] * (v.numpy().astype(float) ** 2).sum(dim)
        )
        np.testing.assert_allclose(participation(v, dim), own, rtol=1e-12)
    assert participation(torch.eye(4)).tolist() == [0.25] * 4 and participation(
        -torch.ones(2, 9)
    ).tolist() == [1.0, 1.0]
    assert participation(1e-30 * torch.tensor([1.0, 1.0, 0.0, 0.0])).item() == pytest.approx(
        0.5
    )  # squares would vanish in float32
    half = participation(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    assert half[0].isnan() and half[1] == 0.5


def test_shifts_change_phi_a_little():
    "Zero padding breaks the invariance: small, and not nothing; equality is not to be expected"
    a, b = (read(D, o, sigma=0.01, draws=1, taps=("mid",)).phi.x for o in (X, X.roll(8, -1)))
    change = ((a - b).norm(dim=1) / a.norm(dim=1)).mean()
    assert 1e-4 < change < 0.5


def test_a_diffusion_model_by_step():
    sched = Schedule.linear(1000)
    ddgm = DDGM(UNet(channels=1, width=32, mult=(1, 2), n_blocks=1, attn=()), sched, (1, 16, 16))
    for t in 1, 250, 1000:
        ab = sched.alpha_bar[t].item()
        assert sigma_at(ddgm, t) == pytest.approx(
            math.sqrt((1 - ab) / ab) / 2, rel=1e-6
        )  # pixels span 2 in the model, 1 here
    a = read(denoiser(ddgm), X[:3], sigma=sigma_at(ddgm, 250), taps=("mid",), draws=2)
    assert a.phi.x.shape == (3, 64) and a.run["sigma"] == sigma_at(ddgm, 250)
    with pytest.raises(ValueError, match="times run"):
        sigma_at(ddgm, 0)


def test_a_foreign_network_by_its_module_names():
    net = nn.Sequential(
        nn.Conv2d(1, 5, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(5, 1, 3, padding=1, bias=False),
    )
    d = denoiser(net, (1, 16, 16), predicts="residual", taps=dict(mid="1"))
    a = read(d, X)
    with torch.no_grad():
        own = net[:2](
            X[:1]
            + 0.5
            * torch.empty(4, 1, 16, 16).normal_(generator=step_generator(0, 0, "cpu", "probes"))
        )
    torch.testing.assert_close(a.phi.x[0], own.mean((0, 2, 3)))
    assert (
        compare_representations(d, X, draws=2, n_clusters=2, progress=False).loc[
            "PR of mid", ("trained", "value")
        ]
        > 0
    )


def test_a_panel_for_every_output():
    axs = plot_participation(A, read(untrained(D, 1), X))
    assert [ax.get_title() for ax in axs] == ["enc1", "enc2", "enc3", "mid", "dec3", "dec2", "dec1"]
    assert len(plot_participation(A, along="images", taps=("mid",))) == 1
    assert json.dumps(A.run)


CALLS = {
    "no draws": (lambda: read(D, X, draws=0), "^draws"),
    "other n in the control": (lambda: plot_participation(A, A.select([0, 1])), "^control"),
    "PR along time": (lambda: plot_participation(A, along="time"), "^along"),
}


@pytest.mark.parametrize("call, words", CALLS.values(), ids=CALLS)
def test_bad_input_is_refused_with_a_reason(call, words):
    with pytest.raises(ValueError, match=words):
        call()
