"The matching step against finite differences and closed forms, and what it leaves alone"

import math

import numpy as np
import pytest
import torch

from denoise_study.representation import draw_floor, match
from helpers import rand, randn
from helpers_selfguided import Linear, refused, small, Smooth


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_rms_move_of_an_adam_step_is_lr_whatever_the_gradient(scale):
    """Plain Adam moves .0042 where gradients are 1e-8 and .0001 at 1e-10; here weights of
    channels shrink them by 1e-8"""
    D, x = small(), rand(4, 1, 16, 16)
    with torch.no_grad():
        goal = D.phi(rand(4, 1, 16, 16, seed=1))
    move = match(D, x, goal, steps=1, mask=torch.full((22,), scale**2))[1].move
    assert torch.allclose(move, torch.full((4,), 0.01), rtol=1e-3)
    at_low = match(D, x, goal, 0.03, steps=1)[1].move  # lr*min(1, sigma/.3)
    assert torch.allclose(at_low, torch.full((4,), 0.001), rtol=1e-3)
    fixed = match(D, x, goal, 0.03, steps=1, lr_by_sigma=False)[1].move
    assert torch.allclose(fixed, torch.full((4,), 0.01), rtol=1e-3)


@pytest.mark.parametrize("method", ["adam", "gd"])
def test_matching_goes_down_and_arrives(method):
    D, x = small(), 0.5 + 0.5 * randn(6, 1, 16, 16)
    with torch.no_grad():
        goal = D.phi(0.5 + 0.5 * randn(6, 1, 16, 16, seed=1))
    one = match(D, x, goal, 0.5, method=method, steps=1)[1]
    assert (one["last"] < one["first"]).all()
    out, info = match(D, x, goal, 0.5, method=method, steps=300)
    assert info.converged.all() and (info["last"] <= 0.01 * info["first"]).all()
    assert (info.steps < 300).all()
    with torch.no_grad():
        again = (D.phi(out) - goal).square().sum(1)
    assert torch.allclose(again, info["last"], rtol=1e-2)  # the report is about what is returned


def test_with_a_spread_an_image_arrives_at_the_floor_of_two_draws():
    D, x = small(), 0.5 + 0.5 * randn(6, 1, 16, 16)
    clean = rand(6, 1, 16, 16, seed=1)
    with torch.no_grad():
        draws = torch.stack([D.phi(clean + 0.5 * randn(6, 1, 16, 16, seed=k)) for k in range(20)])
    goal, spread = draws.mean(0), draws.var(0)
    info = match(D, x, goal, 0.5, method="gd", steps=300, spread=spread)[1]
    assert torch.allclose(info.floor, 2 * spread.sum(1))
    assert torch.equal(info.converged, info["last"] <= info.floor)
    assert (info["last"][info.steps > 0] > 1e-6).all() and info.converged.all()
    # of the matched channels only, and as they are weighted
    w = torch.zeros(22)
    w[[3, 5]] = 2.0
    weighted = match(D, x, goal, 0.5, steps=1, spread=spread, mask=w)[1]
    assert torch.allclose(weighted.floor, 4 * spread[:, [3, 5]].sum(1))
    assert torch.allclose(draw_floor(spread, w), weighted.floor)


def test_gradient_against_finite_differences():
    D, x, goal = Smooth(), rand(3, 1, 8, 8).double(), 0.2 * rand(3, 5, seed=1).double()
    # -2 L grad/|grad|^2: L falls by 2 L along it
    delta = match(D, x, goal, method="gd", lr=1e9, steps=1)[0] - x
    loss = lambda h: (D.averages(x + h * delta)["mid"] - goal).square().sum(1)
    with torch.no_grad():
        slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    assert torch.allclose(slope, -2 * loss(0), rtol=1e-3)


def test_an_image_alone_and_in_a_batch():
    "Companions with losses a million times larger, and one that has already arrived"
    D, x = small(), 0.5 + 0.5 * randn(4, 1, 16, 16)
    with torch.no_grad():
        goal = D.phi(0.5 + 0.5 * randn(4, 1, 16, 16, seed=1))
    goal[0] *= 1000
    with torch.no_grad():
        goal[1] = D.phi(x[1:2])[0]
    sigma = torch.tensor([1.0, 0.5, 0.3, 0.1])
    # gd's steps have no memory: at kinks of ReLUs rounding grows tenfold every few steps
    for method, steps in (("adam", 30), ("gd", 5)):
        both, info = match(D, x, goal, sigma, method=method, steps=steps)
        for i in range(4):
            one = slice(i, i + 1)
            alone, its = match(D, x[one], goal[one], sigma[one], method=method, steps=steps)
            assert (alone[0] - both[i]).abs().max() < 1e-4 and its.steps[0] == info.steps[i]
    # at its target: it must not chase rounding errors
    assert info.steps[1] == 0 and info.converged[1]


def test_linear_phi_is_reset_in_one_step():
    D, x = Linear(np.eye(3) * 0.01, [[1.0, 0, 0]]), rand(5, 3, 1, 1)
    out, info = match(D, x, torch.tensor([0.7]), method="gd", lr=math.inf)
    assert torch.allclose(out[:, 0], torch.full((5, 1, 1), 0.7))
    assert torch.equal(out[:, 1:], x[:, 1:]) and (info.steps <= 1).all()


def test_weights_and_modes_are_left_alone():
    D, x = small(), rand(2, 1, 16, 16)
    D.train()
    first = next(D.parameters()).requires_grad_(False)
    flags = [p.requires_grad for p in D.parameters()]
    before = [p.clone() for p in D.parameters()]
    with torch.inference_mode():
        match(D, x, torch.ones(22), 0.5, steps=2)
    with torch.no_grad():
        match(D, x, torch.ones(22), 0.5, steps=2)  # whatever was turned off
    with pytest.raises(ValueError):
        match(D, x, torch.ones(23), 0.5)
    assert D.training and not first.requires_grad
    assert flags == [p.requires_grad for p in D.parameters()]
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, D.parameters()))
    assert not x.requires_grad


def test_masks_say_the_same_in_three_ways():
    D, x, goal = small(), rand(2, 1, 16, 16), torch.full((22,), 0.01)
    bools = torch.zeros(22, dtype=torch.bool)
    bools[[3, 5]] = True
    outs = [match(D, x, goal, 0.5, mask=m, steps=5)[0] for m in (bools, bools.float(), [3, 5])]
    assert torch.equal(outs[0], outs[1]) and torch.equal(outs[0], outs[2])
    assert not torch.equal(outs[0], match(D, x, goal, 0.5, steps=5)[0])


D, x = small(), rand(2, 1, 16, 16)
goal = torch.full((22,), 0.01)
none = torch.zeros(22, dtype=torch.bool)

CALLS = {
    "phi of another network": (
        lambda: match(D, x, torch.ones(64), 0.5),
        "target: 64 channels.* has 22",
    ),
    "phi of three for two": (
        lambda: match(D, x, torch.ones(3, 22), 0.5),
        r"target: shape \(3, 22\) for 2",
    ),
    "collapsed phi": (lambda: match(D, x, 0 * goal, 0.5), "target: .*collapsed"),
    "nan phi": (lambda: match(D, x, goal * math.nan, 0.5), "target: .*NaN"),
    "no noise": (lambda: match(D, x, goal, 0.0), "sigma: 0.*collapses"),
    "sigma in grey levels": (lambda: match(D, x, goal, 25.0), "(?i)sigma: .*255"),
    "three sigmas for two": (lambda: match(D, x, goal, torch.ones(3)), r"sigma: shape \(3,\)"),
    "unknown method": (lambda: match(D, x, goal, 0.5, method="sgd"), "method: one of"),
    "unknown tap": (lambda: match(D, x, goal, 0.5, tap="middle"), "taps: .*middle"),
    "spread of another network": (
        lambda: match(D, x, goal, 0.5, spread=torch.ones(5)),
        r"spread: variances of 22 channels.*\(5,\)",
    ),
    "two rules of arrival": (
        lambda: match(D, x, goal, 0.5, spread=goal, tol=0.1),
        "tol: with `spread`.*0.1",
    ),
    "no steps": (lambda: match(D, x, goal, 0.5, steps=0), "steps >= 1"),
    "negative lr": (lambda: match(D, x, goal, 0.5, lr=-1.0), "lr > 0"),
    "mask of another length": (
        lambda: match(D, x, goal, 0.5, mask=torch.ones(5)),
        r"mask: shape \(5,\).*22",
    ),
    "empty mask": (lambda: match(D, x, goal, 0.5, mask=none), "mask: no channel"),
    "channel 22": (lambda: match(D, x, goal, 0.5, mask=[22]), r"mask: channel numbers.*0\.\.21"),
    "nan image": (lambda: match(D, x * math.nan, goal, 0.5), "x: "),
    "bytes": (lambda: match(D, x.byte(), goal, 0.5), "x: "),
    "odd size": (lambda: match(D, rand(1, 1, 15, 15), goal, 0.5), "(?i)15|divi|multiple"),
}


@pytest.mark.parametrize("case", CALLS)
def test_bad_input(case):
    refused(*CALLS[case])


def test_a_denoiser_that_cuts_the_gradient_is_named():
    class Cut(Linear):
        def averages(self, *a, **kw):
            return {k: v.detach() for k, v in super().averages(*a, **kw).items()}

    cut = Cut(np.eye(2), [[1.0, 0]])
    with pytest.raises(ValueError, match="D: its averages have no gradient"):
        match(cut, rand(1, 2, 1, 1), torch.ones(1))
