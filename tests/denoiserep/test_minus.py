"DenoiseRep^-, and the positive control of the method"

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import gen
from helpers_denoiserep import DDPM, randn, rel
from denoise_study.denoiserep import DenoiseRepMinus, optimal_denoiser, step_affine


def test_minus_is_its_chain_and_fits_a_head():
    for shared in (False, True):
        m = DenoiseRepMinus(5, DDPM, 7, shared=shared).double()
        with torch.no_grad():
            for p in m.parameters():
                p.copy_(randn(*p.shape, seed=p.ndim) * 20)
            x, head, y = randn(9, 3, 5), nn.Linear(5, 4).double(), randn(9, 3, 5)
            for t in range(7, 0, -1):
                W, b = m.weight[0 if shared else t - 1], m.bias[0 if shared else t - 1]
                y = (y - DDPM.beta[t] / DDPM.noise[t] * (y @ W.T + b)) / DDPM.alpha[t].sqrt()
            assert rel(m(x), y) < 1e-12
            assert rel(m.fuse_into(head)(x), head(m(x))) < 1e-12 < 0.1 < rel(head(x), head(m(x)))
    noisy = m(x, noise=True, generator=gen())
    assert not torch.equal(noisy, m(x)) and torch.equal(noisy, m(x, noise=True, generator=gen()))


def test_minus_learns_what_it_solves():
    x = (torch.randn(4000, 4, generator=gen()) @ torch.randn(4, 4, generator=gen(1)) / 2).double()
    best = DenoiseRepMinus(4, DDPM, 100).double().solve(x)
    losses = [float(best.loss(x, gen(s)).detach()) for s in range(20)]
    true = sum(optimal_denoiser(x.T @ x / 4000, DDPM, t, x.mean(0))[2] for t in range(1, 101)) / 100
    assert sum(losses) / 20 == pytest.approx(true, rel=0.01)
    best.loss(x, gen()).backward()
    assert all(bool(p.grad.any()) for p in best.parameters())


def average_precision(f, y):
    f = F.normalize(f, dim=1)
    hit = (
        y[(f @ f.T).fill_diagonal_(-9).argsort(1, descending=True)[:, :-1]] == y[:, None]
    ).double()
    return float(((hit.cumsum(1) / torch.arange(1, len(y))) * hit).sum(1).div(hit.sum(1)).mean())


def test_positive_control_retrieval():
    "8 dimensions of signal in 256, noise of time 100: mAP by cosine, and the Wiener error"
    rows = []
    for seed in range(4):
        g = gen(seed)
        r = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64)
        y, basis = torch.arange(20).repeat_interleave(20), torch.linalg.qr(r(256, 256))[0][:, :8]
        x0 = (2 * r(20, 8)[y] + r(400, 8)) @ basis.T
        xt, ab = DDPM.signal[100] * x0 + DDPM.noise[100] * r(400, 256), DDPM.alpha_bar[100]
        chain = DenoiseRepMinus(256, DDPM, 100, bias=False).double().solve(x0)
        with torch.no_grad():
            whole, one = chain(xt), xt @ step_affine(DDPM, 100, chain.weight[99])[0].T
        eig = torch.linalg.eigvalsh(x0.T @ x0 / 400)
        wiener = float((eig * (1 - ab) / (ab * eig + 1 - ab)).sum())
        rows.append(
            [average_precision(f, y) for f in (xt, one, whole, x0)]
            + [float((whole - x0).square().sum(1).mean()) / wiener]
        )
    noisy, one, whole, clean, error = torch.tensor(rows).mean(0).tolist()
    assert noisy == pytest.approx(0.742, abs=0.03) and clean == pytest.approx(0.827, abs=0.03)
    assert whole - noisy > 0.03 and abs(one - noisy) < 0.01 and whole < clean
    assert error == pytest.approx(1, abs=0.05)


E = torch.randn(2, 4)


REFUSED = {
    "shared closed form": (
        lambda: DenoiseRepMinus(4, DDPM, 3, shared=True).solve(E),
        "shared: one denoiser",
    ),
    "too many steps": (lambda: DenoiseRepMinus(4, DDPM, 1001), "times run"),
    "head without bias": (
        lambda: DenoiseRepMinus(4, DDPM, 3).fuse_into(nn.Linear(4, 2, bias=False)),
        "head: has no bias",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()
