"A step and a linear layer in one: factors, indices, transposes, types"

import pytest
import torch
import torch.nn.functional as F

from helpers_denoiserep import C1, CODE, DDPM, randn, rel
from denoise_study.denoiserep import compose, fuse_linear, step_affine


def test_zero_denoiser_leaves_the_factor_and_times_start_at_one():
    zero = torch.zeros(3, 3)
    for sched in (DDPM, CODE):
        for t in (1, 2, 500, 1000):
            assert torch.equal(
                step_affine(sched, t, zero)[0], torch.eye(3).double() / sched.alpha[t].sqrt()
            )
            assert torch.equal(step_affine(sched, t, zero, mode="slides")[0], torch.eye(3).double())
        one = -step_affine(sched, 1, torch.ones(1, 1), mode="slides")[0] + 1
        assert float(one) == pytest.approx(
            float((sched.beta[1] / sched.alpha[1]).sqrt()), rel=1e-12
        )
        for t in (0, 1001):
            pytest.raises(ValueError, step_affine, sched, t, zero)


@pytest.mark.parametrize(
    "sched, t, c1, a, gain",
    [
        (CODE, 1, 1.000e-2, 5.0e-5, 0.999950),
        (CODE, 2, 7.17e-3, 5.1e-5, 0.999949),
        (CODE, 13, 3.23e-3, 6.1e-5, 0.999939),
        (CODE, 25, 2.63e-3, 7.3e-5, 0.999927),
        (DDPM, 25, 6.29e-3, 2.9e-4, 0.999711),
        (DDPM, 500, 1.05e-2, 5.1e-3, 0.994967),
    ],
)
def test_the_dropped_factor_is_as_large_as_the_effect(sched, t, c1, a, gain):
    W = (1 - sched.alpha_bar[t]).sqrt().view(1, 1)  # the best denoiser of unit variance
    A, slides = (float(step_affine(sched, t, W, mode=m)[0]) for m in ("exact", "slides"))
    assert C1(sched, t) == pytest.approx(c1, rel=6e-3) and float(
        sched.alpha[t] ** -0.5 - 1
    ) == pytest.approx(a, rel=2e-2)
    assert A == pytest.approx(gain, abs=1e-6) and A == pytest.approx(
        float(sched.alpha[t].sqrt()), rel=1e-12
    )
    assert (1 - slides) / (1 - A) == pytest.approx(
        2, rel=0.02
    )  # the dropped factor is as large as the effect


def test_the_denoiser_is_not_transposed():
    W, t, E = randn(4, 3), 13, torch.zeros(3, 3).double()
    E[0, 1] = 1
    fused = fuse_linear(W, None, *step_affine(DDPM, t, E))[0] - W / DDPM.alpha[t].sqrt()
    assert (
        torch.allclose(fused[:, 1], -C1(DDPM, t) * W[:, 0], rtol=1e-12)
        and fused[:, [0, 2]].abs().max() < 1e-15
    )


def test_the_time_embedding_reaches_the_bias():
    W, b, W_D, e, t = randn(4, 3), randn(4, seed=1), randn(3, 3, seed=2), randn(3, seed=3), 13
    A, c = step_affine(DDPM, t, W_D, e_t=e)
    assert torch.allclose(fuse_linear(W, b, A, c)[1], b - C1(DDPM, t) * W @ W_D @ e, rtol=1e-12)
    both = step_affine(DDPM, t, W_D, b_D=e, e_t=e)[1]
    assert torch.allclose(both, -C1(DDPM, t) * (e + W_D @ e), rtol=1e-12)


@pytest.mark.parametrize("dtype, tol", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_fuse_linear_both_places(dtype, tol):
    W, b, x = randn(5, 4), randn(5, seed=1), randn(50, 4, seed=2)
    for place, d in (("pre", 4), ("post", 5)):
        A, c = step_affine(
            DDPM, 7, randn(d, d, seed=3) / C1(DDPM, 7), randn(d, seed=4) / C1(DDPM, 7)
        )
        true = F.linear(x @ A.T + c, W, b) if place == "pre" else F.linear(x, W, b) @ A.T + c
        W1, b1 = fuse_linear(W.to(dtype), b.to(dtype), A, c, place)
        assert W1.dtype == dtype and rel(F.linear(x.to(dtype), W1, b1), true) < tol < 0.1 < rel(
            F.linear(x, W, b), true
        )
    assert fuse_linear(W, None, torch.eye(4).double())[1] is None
    assert torch.equal(
        fuse_linear(W, None, torch.eye(4).double(), torch.ones(4).double())[1],
        W @ torch.ones(4).double(),
    )


REFUSED = {
    "matrix of another size": (
        lambda: fuse_linear(torch.zeros(3, 4), None, torch.eye(3)),
        r"A: shape \(4, 4\)",
    ),
    "place unknown": (
        lambda: fuse_linear(torch.zeros(3, 4), None, torch.eye(4), place="in"),
        "place: one of",
    ),
    "oblong denoiser": (lambda: step_affine(DDPM, 3, torch.zeros(3, 4)), "W_D: a square matrix"),
    "empty chain": (lambda: compose(), "maps: at least one"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()
