"Pairs of images: second implementations, closed forms, what is refused"

import json
import math

import pytest
import torch
from torch import nn

from denoise_study.core import compare_images, mae, ms_ssim, ms_ssim_setting


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=6, c=1, side=32, seed=0):
    return torch.rand(n, c, side, side, generator=gen(seed))


def smooth(n=6, c=3, side=256, seed=0):
    "Pictures with structure, and their noisy copies"
    x = nn.functional.interpolate(
        images(n, c, max(side // 16, 4), seed), size=(side, side), mode="bicubic"
    ).clamp(0, 1)
    return x, (x + 0.05 * torch.randn(x.shape, generator=gen(seed + 1))).clamp(0, 1)


def test_mae_scale():
    x, y = images(), images(seed=1)
    ref = (x - y).abs().mean((1, 2, 3))
    torch.testing.assert_close(mae(x, y), 2 * ref)
    torch.testing.assert_close(mae(x * 2 - 1, y * 2 - 1, range=(-1, 1)), 2 * ref)
    torch.testing.assert_close(mae(x, y, scale=(0, 1)), ref)


def test_mae_of_noise_is_its_mean_magnitude():
    x = torch.full((4, 3, 64, 64), 0.5)
    noise = 0.05 * torch.randn(x.shape, generator=gen())
    assert mae(x + noise, x).mean().item() == pytest.approx(
        2 * 0.05 * math.sqrt(2 / math.pi), rel=0.02
    )


@pytest.mark.parametrize("side", [176, 256])
def test_ms_ssim_equals_pytorch_msssim_at_its_own_setting(side):
    from pytorch_msssim import ms_ssim as ref

    x, y = smooth(3, side=side)
    torch.testing.assert_close(
        ms_ssim(x, y), ref(x, y, data_range=1.0, size_average=False), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("side,win", [(28, 7), (32, 7), (32, 11), (64, 7), (29, 7)])
def test_ms_ssim_equals_its_definition(side, win):
    "Wang et al. written out: a 2-d Gaussian over every window, no convolution"
    x, y = smooth(4, 1, side + side % 2)
    a, b = x[..., :side, :side].double(), y[..., :side, :side].double()
    g = torch.exp(-((torch.arange(win).double() - win // 2) ** 2) / (2 * 1.5**2))
    g = torch.outer(g, g).reshape(1, -1, 1) / g.sum() ** 2
    mine, setting, res = ms_ssim(a, b, win=win), ms_ssim_setting((side, side), win), 1.0
    for j, weight in enumerate(setting.weights):
        p, q = (nn.functional.unfold(o, win) for o in (a, b))
        mean = lambda o: (g * o).sum(1)
        mp, mq = mean(p), mean(q)
        cs = (2 * (mean(p * q) - mp * mq) + 0.03**2) / (
            mean(p * p) - mp**2 + mean(q * q) - mq**2 + 0.03**2
        )
        last = j == setting.scales - 1
        res = (
            res
            * (cs * (2 * mp * mq + 0.01**2) / (mp**2 + mq**2 + 0.01**2) if last else cs)
            .mean(1)
            .clamp(min=0)
            ** weight
        )
        a, b = (nn.functional.avg_pool2d(o, 2) for o in (a, b))
    torch.testing.assert_close(
        mine, res, rtol=0, atol=3e-5
    )  # pytorch-msssim builds its window in float32


def test_ms_ssim_equals_torchmetrics():
    tm = pytest.importorskip("torchmetrics.functional.image")
    x, y = smooth(3, 1, 192)
    ref = [
        tm.multiscale_structural_similarity_index_measure(a[None], b[None], data_range=1.0)
        for a, b in zip(x, y)
    ]
    torch.testing.assert_close(ms_ssim(x, y), torch.stack(ref), rtol=0, atol=2e-5)


def test_ms_ssim_properties():
    x, y = smooth(4, 1, 28)
    torch.testing.assert_close(ms_ssim(x, x), torch.ones(4))
    inverse = ms_ssim(x, 1 - x)
    assert not inverse.isnan().any() and inverse.max() < 0.1
    checker = (torch.arange(32)[:, None] + torch.arange(32)).remainder(2).float()[None, None]
    assert ms_ssim(checker, 1 - checker).item() == 0
    torch.testing.assert_close(
        ms_ssim(x * 255, y * 255, range=(0, 255)), ms_ssim(x, y), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(
        ms_ssim(x * 2 - 1, y * 2 - 1, range=(-1, 1)), ms_ssim(x, y), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(
        ms_ssim(x, y)[2:3], ms_ssim(x[2:3], y[2:3])
    )  # images don't influence each other


def test_compare_images_record():
    x, y = smooth(5, 3, 32)
    r = compare_images(x, y, n_boot=50)
    assert json.loads(json.dumps(r)) == r
    assert (r.n, r.size, r.ms_ssim.win, r.ms_ssim.scales, r.mae.scale) == (
        5,
        [32, 32],
        7,
        3,
        [-1.0, 1.0],
    )
    assert r.mae.value == pytest.approx(mae(x, y).double().mean().item())


@pytest.mark.parametrize("f", [mae, ms_ssim])
@pytest.mark.parametrize(
    "change,error,match",
    [
        (lambda x: x * 2 - 1, ValueError, "y"),
        (lambda x: x[:, 0], ValueError, "y"),
        (lambda x: (x * 255).byte(), TypeError, "y"),
        (lambda x: x.where(x > 0.5, torch.nan), ValueError, "y"),
        (lambda x: x[..., 1:], ValueError, "same shape"),
        (lambda x: x[:0], ValueError, "y"),
        (lambda x: x.double(), TypeError, "float64"),
    ],
)
def test_image_faults(f, change, error, match):
    with pytest.raises(error, match=match):
        f(images(), change(images(seed=1)))


def test_setting_faults():
    x = images(2, 1, 6)
    with pytest.raises(ValueError, match="`win`"):
        ms_ssim(x, x)
    assert ms_ssim(x, x, win=5).tolist() == pytest.approx([1, 1])
    with pytest.raises(ValueError, match="`win`"):
        ms_ssim(images(), images(), win=8)
    with pytest.raises(ValueError, match="`scales`"):
        ms_ssim(images(), images(), scales=4)
    with pytest.raises(ValueError, match="scale: two finite"):
        mae(images(), images(), scale=(1, 0))
