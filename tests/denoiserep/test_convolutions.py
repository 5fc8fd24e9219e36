"Fusion into convolutions of every kind, on images where the border dominates"

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers_denoiserep import C1, check_exact, DDPM, randn, rel
from denoise_study.denoiserep import denoise_rep, fuse_conv, step_affine


CONVS = {  # name -> dimensions, channels in, out, and arguments
    "1d": (1, 4, 6, {}),
    "2d": (2, 4, 6, {}),
    "3d": (3, 4, 6, {}),
    "1x1": (2, 4, 6, dict(kernel_size=1)),
    "zero padding": (2, 4, 6, dict(padding=1)),
    "same": (2, 4, 6, dict(padding="same", dilation=2)),
    "stride": (2, 4, 6, dict(stride=2, padding=2)),
    "dilation": (2, 4, 6, dict(dilation=2, padding=1)),
    "reflect": (2, 4, 6, dict(padding=1, padding_mode="reflect")),
    "circular": (2, 4, 6, dict(padding=1, padding_mode="circular")),
    "replicate": (1, 4, 6, dict(padding=2, padding_mode="replicate")),
    "groups": (2, 4, 6, dict(groups=2, padding=1)),
    "depthwise": (2, 4, 4, dict(groups=4, padding=1)),
    "multiplier": (2, 4, 8, dict(groups=4, stride=2)),
    "no bias": (2, 4, 6, dict(bias=False, padding=1)),
    "oblong": (2, 4, 6, dict(kernel_size=(1, 3), padding=(0, 1))),
}


def conv(name):
    n, i, o, kw = CONVS[name]
    torch.manual_seed(0)
    return getattr(nn, f"Conv{n}d")(i, o, **{"kernel_size": 3, **kw}), torch.randn(3, i, *[5] * n)


@pytest.mark.parametrize("dtype, tol", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", CONVS)
def test_convolutions_fuse_exactly_or_are_refused_a_bias(name, dtype, tol):
    "On 5 pixels a side, where the border dominates"
    m, x = conv(name)
    dr = check_exact(nn.Sequential(m.to(dtype)), x.to(dtype), tol, far=0.1)
    exact = m.bias is not None and (
        m.padding_mode != "zeros" or m.padding in (0, (0,) * (m.weight.ndim - 2))
    )
    m, x = conv(name)
    net = nn.Sequential(m.to(dtype))
    if exact:
        check_exact(net, x.to(dtype), tol, far=0.1, bias=True)
    else:
        pytest.raises(ValueError, denoise_rep, net, example=x.to(dtype), bias=True)
    m, x = conv(name)
    dr = check_exact(nn.Sequential(m.to(dtype)), x.to(dtype), tol, far=0.1, bias="auto")
    assert (dr.report().note.iloc[0] == "with bias") == exact


def test_unbatched_convolution():
    m, x = conv("zero padding")
    check_exact(nn.Sequential(m.double()), x[0].double(), 1e-12)


def test_a_shift_before_zero_padding_would_spoil_the_border():
    m, x = conv("zero padding")
    W, b, x = m.weight.detach().double(), m.bias.detach().double(), x.double()
    A, c = step_affine(DDPM, 13, randn(1, 4, 4), randn(1, 4, seed=1) / C1(DDPM, 13))
    y = torch.einsum("ij,njhw->nihw", A[0], x) + c.view(-1, 1, 1)
    true, fused = F.conv2d(y, W, b, padding=1), F.conv2d(x, *fuse_conv(W, b, A, c), padding=1)
    assert rel(fused, true) > 0.1 and (fused - true)[..., 1:-1, 1:-1].abs().max() < 1e-12
    for padding in (1, (0, 1), "same"):
        pytest.raises(ValueError, fuse_conv, W, b, A, c, padding=padding)
    assert fuse_conv(W, b, A, c, padding="valid")[1] is not None


def test_fuse_conv_behind_the_layer():
    for groups in (1, 2):
        W, b, x = randn(6, 4 // groups, 3, 3), randn(6, seed=1), randn(2, 4, 5, 5, seed=2)
        A, c = step_affine(
            DDPM,
            7,
            randn(groups, 6 // groups, 6 // groups, seed=3) / C1(DDPM, 7),
            randn(groups, 6 // groups, seed=4) / C1(DDPM, 7),
        )
        y = F.conv2d(x, W, b, padding=1, groups=groups)
        true = torch.einsum("gij,ngjhw->ngihw", A, y.unflatten(1, (groups, -1))).flatten(
            1, 2
        ) + c.reshape(-1, 1, 1)
        assert (
            rel(
                F.conv2d(
                    x, *fuse_conv(W, b, A, c, groups, 1, place="post"), padding=1, groups=groups
                ),
                true,
            )
            < 1e-12
        )


def test_block_diagonal_matrix_is_accepted_whole():
    W, A = randn(6, 2, 3, 3), randn(2, 2, 2)
    assert torch.equal(
        fuse_conv(W, None, torch.block_diag(*A), groups=2)[0], fuse_conv(W, None, A, groups=2)[0]
    )


REFUSED = {
    "kernel in the denoiser": (
        lambda: fuse_conv(torch.zeros(3, 4, 3, 3), None, torch.zeros(4, 4, 3, 3)),
        "only a pointwise denoiser",
    ),
    "groups mixed": (
        lambda: fuse_conv(torch.zeros(4, 2, 3, 3), None, torch.ones(4, 4), groups=2),
        "mixes the 2 groups",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()
