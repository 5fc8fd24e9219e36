"Images in, named features out"

import pytest
import torch
from torch import nn

from denoise_study.core import compute_features, image_dls, load_arrays


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
    with pytest.raises(TypeError, match="space: an nn.Module"):
        compute_features(torch.flatten, x)
    with pytest.raises(ValueError, match="without a `name`"):
        compute_features(nn.Linear(2, 2), x)
    with pytest.raises(ValueError, match="no batch"):
        compute_features(space, [], range=(0, 1))


def test_every_image_of_a_loader_is_looked_at_in_order():
    "A training loader shuffles and leaves its short last batch out; its place stays as it was"
    from fastai.data.core import DataLoader

    dls = image_dls("digits", device="cpu")
    dls.train.epoch, dls.train.start = 3, 5
    f = compute_features(nn.Flatten(), dls.train, progress=False)
    bytes_ = load_arrays("digits")["train"][0].flatten(1)
    torch.testing.assert_close(f.x, bytes_ / 255)
    assert (dls.train.epoch, dls.train.start) == (3, 5)
    short = dls.train.new(batches=2)
    assert len(compute_features(nn.Flatten(), short, progress=False)) == dls.info.n_train

    x = images(10, 1, 4)
    theirs = DataLoader([(im, 0) for im in x], bs=4, shuffle=True, drop_last=True)
    f = compute_features(nn.Flatten(), theirs, range=(0, 1), progress=False)
    torch.testing.assert_close(f.x, x.flatten(1))
    bare = torch.utils.data.DataLoader(x, 4, drop_last=True)
    with pytest.raises(ValueError, match="images: a loader that leaves out its last batch"):
        compute_features(nn.Flatten(), bare, range=(0, 1), progress=False)
