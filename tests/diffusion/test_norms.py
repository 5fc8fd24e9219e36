"The group norm's route in blocks against the plain form and finite differences"

import pytest
import torch

from denoise_study.diffusion import group_norm_act, norm_groups, NormAct, norms


def plain(norm, xs, film):
    s, b = film.chunk(2, 1)
    scale, shift = norm.weight * (1 + s), norm.bias * (1 + s) + b
    return group_norm_act(scale[:, None], shift[:, None], norm.groups, norm.act, *xs)


@pytest.mark.parametrize("act", [True, False])
@pytest.mark.parametrize("block", [1, 2**19])
def test_norm_gradients(act, block, monkeypatch):
    "In float64, second derivatives included, in one block and in many"
    monkeypatch.setattr(norms, "CACHE_BLOCK", block)
    g = torch.Generator().manual_seed(0)
    norm = NormAct(12, act).double()
    random = dict(generator=g, dtype=torch.float64, requires_grad=True)
    xs = [torch.randn(3, c, 2, 3, **random) for c in (8, 4)]
    film = torch.randn(3, 24, **random)
    last = lambda x: x.contiguous(memory_format=torch.channels_last)
    f = lambda a, b, film: norm(last(a), last(b), film=film)
    torch.testing.assert_close(f(*xs, film), plain(norm, xs, film))
    assert torch.autograd.gradcheck(f, (*xs, film))
    assert torch.autograd.gradgradcheck(f, (*xs, film))


def test_norm_far_from_zero():
    "The variance is taken around the mean: an offset of 1000 costs the input's own rounding"
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 64, 8, 8, generator=g).contiguous(memory_format=torch.channels_last)
    norm = NormAct(64, act=False)
    assert (norm(x + 1000) - norm(x)).abs().max() < 1e-2
    bf = norm(x.bfloat16())
    assert bf.dtype == torch.bfloat16
    assert torch.allclose(bf.float(), norm(x.bfloat16().float()), atol=0.02)


@pytest.mark.parametrize("n", [1, 7, 32, 33, 40, 48, 64, 192])
def test_groups(n):
    assert n % norm_groups(n) == 0 and norm_groups(n) <= 32
    assert n % 32 or norm_groups(n) == 32
