"One layer: its loss, its precision, its two forms"

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import gen
from helpers_denoiserep import net, rel, wild, X
from denoise_study.denoiserep import denoise_rep


def test_side_loss_of_some_rows():
    "A random part of the feature vectors: the same loss in expectation; small layers whole"
    x = torch.randn(2000, 1, 8, generator=gen())
    d = (
        wild(denoise_rep(nn.Sequential(nn.Linear(8, 3)), t=300, example=x[:2, 0]), 0.1)
        .slots["0"]
        .denoiser
    )
    whole, some = (
        torch.stack([d.side_loss(x, "l2", gen(s), r) for s in range(30)]).mean()
        for r in (None, 200)
    )
    assert float(some) == pytest.approx(float(whole), rel=0.03) and torch.equal(
        d.side_loss(x, "l1", gen(), 5000), d.side_loss(x, "l1", gen())
    )


def test_side_loss_is_the_mean_over_each_noise_and_its_opposite():
    "By two plain losses, and with the scatter that pairs take away"
    x = torch.randn(300, 1, 8, generator=gen())
    net = nn.Sequential(nn.Linear(8, 3))
    d = wild(denoise_rep(net, t=20, example=x[:2, 0]), 0.1).slots["0"].denoiser
    eps = torch.randn(x.shape, generator=gen(1))

    def plain(eps):
        xt = d.signal * x + d.noise * eps
        return (eps - torch.einsum("ngi,gji->ngj", xt, d.W_D)).abs().mean()

    expected = (plain(eps) + plain(-eps)) / 2
    assert float(d.side_loss(x, "l1", gen(1))) == pytest.approx(float(expected), rel=1e-6)


def test_autocast_does_not_reach_the_denoiser():
    dr, x = wild(denoise_rep(net(), example=X)), torch.randn(50, 1, 8, generator=gen())
    d, seen = dr.slots["head"].denoiser, []
    for on in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=on), torch.no_grad():
            seen.append(
                (
                    dr.model.head.weight,
                    dr.model.blocks.layers[0].linear1.weight,
                    d.side_loss(x, "l1", gen()),
                )
            )
            with dr.recording(gen()):
                dr.model(X)
        assert all(v.dtype == torch.float32 for v in dr.losses().values())
    assert all(torch.equal(a, b) for a, b in zip(*seen))


def test_gradients_agree_between_the_two_forms():
    "The parametrized weight and the explicit second branch are one function of the denoisers"
    dr, grads = wild(denoise_rep(net().double(), example=X.double(), bias="auto")), []
    for two in (False, True):
        for p in dr.parameters():
            p.grad = None
        if two:
            with dr.two_branch():
                out = dr.model(X.double())
        else:
            out = dr.model(X.double())
        F.cross_entropy(out, torch.arange(len(X))).backward()
        grads.append([p.grad.clone() for p in dr.parameters()])
    assert all(rel(a, b) < 1e-9 for a, b in zip(*grads))


def test_whitening_changes_how_a_denoiser_is_written_and_nothing_else(tmp_path):
    "Its matrix, its step, its file; a file of whitened ones is read by plain ones"
    dr = wild(denoise_rep(net(), example=X))
    with torch.no_grad():
        before = dr.model(X)
    dr.whiten(X, progress=False)
    with torch.no_grad():
        assert rel(dr.model(X), before) < 1e-4
        with dr.two_branch():
            assert rel(dr.model(X), before) < 1e-4
    dr.save(tmp_path / "d.safetensors")
    again = denoise_rep(net(), example=X).load(tmp_path / "d.safetensors")
    assert all(s.denoiser.whitening is None for s in again.slots.values())
    with torch.no_grad():
        assert rel(again.model(X), before) < 1e-4
        assert rel(dr.fuse()(X), before) < 1e-4
