"The blocks of the U-Net: two inputs are one, and attention on every route is its formula"

import pytest
import torch
from torch import nn

from helpers_diffusion import scramble
from denoise_study.diffusion import Attention, ResBlock, timestep_embedding, zeroed


@pytest.mark.parametrize("sample", [None, "up", "down"])
@pytest.mark.parametrize("scale_shift", [True, False])
@pytest.mark.parametrize("n_out", [48, 32])
def test_two_inputs_are_their_concatenation(sample, scale_shift, n_out):
    block = scramble(ResBlock(48, n_out, scale_shift=scale_shift, sample=sample))
    g = torch.Generator().manual_seed(1)
    x1, x2 = (torch.randn(2, c, 4, 6, generator=g) for c in (32, 16))
    film = torch.randn(2, block.n_film, generator=g)
    both = block(torch.cat([x1, x2], 1), film=film.clone())
    torch.testing.assert_close(block(x1, x2, film=film), both, rtol=1e-4, atol=1e-5)
    side = {None: (4, 6), "up": (8, 12), "down": (2, 3)}[sample]
    assert both.shape == (2, n_out, *side)


@pytest.mark.parametrize("new_order", [True, False])
def test_attention_is_its_formula(new_order):
    "Heads cut by hand; in bfloat16 another route of the CPU gives the same to rounding"
    att = scramble(Attention(32, heads=4, new_order=new_order))
    x = torch.randn(2, 32, 3, 5, generator=torch.Generator().manual_seed(1))
    rows = att.qkv(att.norm(x)).flatten(2)  # (N,3C,HW)
    out = torch.empty(2, 32, 15)
    for head in range(4):
        at = [
            slice(i * 32 + head * 8, i * 32 + head * 8 + 8)
            if new_order
            else slice(head * 24 + i * 8, head * 24 + i * 8 + 8)
            for i in range(3)
        ]
        q, k, v = (rows[:, s] for s in at)
        weights = (q.mT @ k / 8**0.5).softmax(-1)
        out[:, head * 8 : head * 8 + 8] = v @ weights.mT
    want = x + att.proj(out.view(2, 32, 3, 5))
    torch.testing.assert_close(att(x), want, rtol=1e-4, atol=1e-5)
    half = att.bfloat16()(x.bfloat16()).float()
    assert (half - want).norm() < 0.02 * want.norm()


def test_time_labels():
    emb = timestep_embedding(torch.tensor([0, 3, 999]), 33)
    assert emb.shape == (3, 33) and emb.dtype == torch.float32
    assert emb[:, -1].eq(0).all()  # an odd length is padded
    torch.testing.assert_close(emb, timestep_embedding(torch.tensor([0.0, 3.0, 999.0]), 33))


def test_zeroed():
    layer = nn.Conv2d(2, 3, 3)
    assert zeroed(layer) is layer and not any(p.any() for p in layer.parameters())
