"Images in, named features out"

import pytest
import torch
from torch import nn

from denoise_study.core import compute_features


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=6, c=1, side=32, seed=0):
    return torch.rand(n, c, side, side, generator=gen(seed))


class Named(nn.Linear):
    name = "linear (seed 0)"

    def forward(self, x):
        return super().forward(x.flatten(1))


def test_compute_features():
    torch.manual_seed(0)
    space, x = Named(64, 5), images(10, 1, 8)
    f = compute_features(space, x, bs=3, progress=False)
    torch.testing.assert_close(f.x, space(x).detach())
    assert (f.space, f.dim, len(f), len(f[2:5]), space.training) == (
        "linear (seed 0)",
        5,
        10,
        3,
        True,
    )
    loader = [(x[:4] * 2 - 1, None), (x[4:] * 2 - 1, None)]
    torch.testing.assert_close(
        compute_features(space, loader, range=(-1, 1), progress=False).x, f.x
    )
    with pytest.raises(ValueError, match="`range`"):
        compute_features(space, loader)
    with pytest.raises(ValueError, match="images"):
        compute_features(space, x * 2 - 1, progress=False)
    with pytest.raises(ValueError, match="`space`"):
        compute_features(nn.Identity(), x, progress=False)
    with pytest.raises(TypeError, match="`space`"):
        compute_features(torch.flatten, x)
    with pytest.raises(ValueError, match="without a `name`"):
        compute_features(nn.Linear(2, 2), x)
    with pytest.raises(ValueError, match="no batch"):
        compute_features(space, [], range=(0, 1))
