"The norm of the blind networks: its route in blocks against formula and finite differences"

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from denoise_study.diffusion import scale_norm_relu, ScaleNorm
from denoise_study.diffusion.scalenorm import _ScaleRelu


def plain(gain, a):
    spread = a.flatten(1).std(1, correction=0)[:, None] + 1e-5
    return F.relu(a * (gain / spread)[..., None, None])


@pytest.mark.parametrize("shape", [(3, 6, 5, 7), (1, 1, 8, 8), (2, 64, 64, 64), (40, 16, 32, 32)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_norm_against_its_formula(shape, layout):
    a = torch.randn(shape, generator=torch.Generator().manual_seed(0)).add(0.3)
    a = a.contiguous(memory_format=layout).requires_grad_()
    norm = ScaleNorm(shape[1])
    w = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(norm(a), plain(norm.gain, a), atol=1e-7)
    assert torch.allclose(scale_norm_relu(norm.gain, a), norm(a), atol=1e-7)
    ours, theirs = (
        torch.autograd.grad((y * w).sum(), (a, norm.gain)) for y in (norm(a), plain(norm.gain, a))
    )
    for p, q in zip(ours, theirs):
        assert torch.allclose(p, q, rtol=1e-3, atol=1e-5 * q.abs().max().item())


def test_gradients_to_second_order():
    random = dict(dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a = torch.randn(2, 3, 3, 3, **random).requires_grad_()
    gain = torch.tensor([0.5, -0.7, 0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(_ScaleRelu.apply, (gain, a))
    assert torch.autograd.gradgradcheck(_ScaleRelu.apply, (gain, a))
    assert torch.autograd.gradcheck(scale_norm_relu, (gain, a))


@pytest.mark.parametrize("f", [scale_norm_relu, _ScaleRelu.apply])
def test_an_image_without_spread(f):
    a = torch.full((2, 3, 4, 4), 0.0).requires_grad_()
    y = f(torch.tensor([0.1, -0.1, 0.1]), a)
    assert (y == 0).all() and torch.autograd.grad(y.sum(), a)[0].isfinite().all()


def test_statistics_are_float32():
    "A bfloat16 image of many pixels: sums in bfloat16 would be off by tens of percent"
    a = torch.rand(2, 32, 64, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    norm = ScaleNorm(32)
    got, want = norm(a), plain(norm.gain, a.float())
    off = (got.float() / want.clamp(min=1e-8) - 1)[want > 1e-4]
    assert got.dtype == torch.bfloat16 and off.abs().max() < 0.005


def test_nothing_is_centred():
    norm = ScaleNorm(4)
    nn.init.ones_(norm.gain)
    a = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert (norm(a + 5) > 0).all()  # GroupNorm(1) would let half of either pass
    assert (norm(a - 5) == 0).all()
