"Segmentation: boundaries against an erosion, pixels that nobody knows"

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion
from torch import nn

from denoise_study.denoiserep import boundary, IGNORE, MaskSource, score_segmentation, segmenter
from denoise_study.denoiserep import shape_masks


def test_boundary_agrees_with_erosion():
    m = torch.rand(3, 24, 30, generator=torch.Generator().manual_seed(0)) < 0.9
    for d in (1, 2, 4):
        true = [a & ~binary_erosion(a, np.ones((3, 3)), iterations=d) for a in m.numpy()]
        assert np.array_equal(boundary(m, d).numpy(), np.stack(true))


class Knows(nn.Module):
    "A network that gives the classes in `y`"

    def forward(self, x):
        return dict(out=nn.functional.one_hot(self.y, 3).permute(0, 3, 1, 2).float())


def test_pixels_that_nobody_knows_count_nowhere():
    d = shape_masks((8, 8, 8), bs=8)
    net, (_, y) = Knows(), d.test.one_batch()
    net.y = y.clone()
    net.y[:, :20] = 2  # nonsense where nobody knows
    masks = d.test.dataset.masks.clone()
    masks[:, :20] = IGNORE
    loader = d.test.new(dataset=MaskSource(d.test.dataset.pictures, masks))
    s = score_segmentation(net, loader).metrics
    assert s["aAcc"] == 1 and s["mIoU"] == 1
    net.y = y.roll(3, 2)
    shifted = score_segmentation(net, d.test)
    assert float(shifted.items.mean()) == pytest.approx(shifted.metrics["mIoU"], abs=1e-9)
    assert 0.1 < shifted.metrics["mIoU"] < 0.99 and shifted.items.std() > 0
    with pytest.raises(ValueError, match="masks: 8 of them"):
        MaskSource(d.test.dataset.pictures, masks[:3])
    with pytest.raises(ValueError, match="backbone: one of .*fcn_tiny"):
        segmenter("unet", 3)
