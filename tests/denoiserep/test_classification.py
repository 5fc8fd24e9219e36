"Classifiers, their accuracy and their augmentation"

import pytest
import torch
from torch import nn

from denoise_study.core import image_dls
from denoise_study.denoiserep import accuracy, backbone, CIFARResNet, classification_task, Prepared
from denoise_study.denoiserep import shift_flip


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_published_architecture():
    "He et al. 2016, table 6: 0.27M and 0.85M weights; shortcuts without weights"
    counts = [sum(p.numel() for p in CIFARResNet(10, d).parameters()) for d in (20, 56)]
    assert [round(n / 1e6, 2) for n in counts] == [0.27, 0.85]
    assert not any("short" in k or "down" in k for k in CIFARResNet().state_dict())
    with pytest.raises(ValueError, match="depth: 6n"):
        CIFARResNet(10, 21)


def test_prepared_normalises_and_repeats_grey():
    net = Prepared(nn.Identity())
    x = torch.rand(2, 1, 4, 4)
    assert torch.allclose(net(x), (x.expand(-1, 3, -1, -1) - net.mean) / net.std)
    assert not net.state_dict()


def test_shift_flip_with_a_flip():
    x = torch.arange(16.0).view(1, 1, 4, 4).expand(64, 1, 4, 4) + 1
    y = shift_flip(x, gen(), 0, flip=True)
    mirrored = (y == x.flip(3)).flatten(1).all(1)
    same = (y == x).flatten(1).all(1)
    assert (same | mirrored).all() and 15 < int(mirrored.sum()) < 50


def test_unlabelled_data_are_refused():
    images = torch.randint(0, 255, (40, 8, 8), dtype=torch.uint8, generator=gen())
    bare = image_dls(images, range=(0.0, 1.0), device="cpu")
    with pytest.raises(ValueError, match="no classes to learn"):
        classification_task(dls=bare)
    with pytest.raises(ValueError, match="have no label"):
        accuracy(Prepared(nn.Flatten()), bare.valid)
    with pytest.raises(ValueError, match="backbone: one of"):
        backbone("resnet19", 8, 10)
