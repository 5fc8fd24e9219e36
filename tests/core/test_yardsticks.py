"How alike the images of a set are, and sets in rows: against plain loops"

import pytest
import torch
from torch import nn

from denoise_study.core import compare_sets, compute_features, diversity, image_dls, ms_ssim
from denoise_study.core import scored_sets


def images(n=9, seed=0):
    return torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_each_image_is_in_one_pair():
    x = images()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3)).tolist()
    alike = [ms_ssim(x[[order[i]]], x[[order[i + 4]]]).item() for i in range(4)]
    for bs in (1, 3, 128):
        found = diversity(x, seed=3, bs=bs)
        assert found.value == pytest.approx(sum(alike) / 4, abs=1e-6)
        assert (found.n, found.unit, found.win) == (4, "pairs", 7)


def test_the_range_makes_no_difference():
    x = images()
    assert diversity(2 * x - 1, (-1.0, 1.0)).value == pytest.approx(diversity(x).value, abs=1e-6)


def test_a_loader_is_sampled_as_its_images():
    dls = image_dls("digits", bs=7, device="cpu")
    x = torch.cat([x for x, _ in dls.test])
    assert diversity(dls.test, pairs=30) == diversity(x, (-1.0, 1.0), pairs=30)


def test_copies_are_alike():
    found = diversity(images(1).expand(6, -1, -1, -1))
    assert found.low == pytest.approx(1) and found.high == pytest.approx(1)


def test_what_is_no_set_is_refused():
    with pytest.raises(ValueError, match="at least 4 are needed, for two pairs, got 3"):
        diversity(images(3))
    with pytest.raises(TypeError, match="a tensor or a loader of `image_dls` is accepted, got a"):
        diversity([images()], (0.0, 1.0))
    with pytest.raises(ValueError, match="not one fits"):
        diversity(images()[..., :4, :4])


def test_rows_are_what_each_comparison_gives():
    space = nn.Sequential(nn.AvgPool2d(8), nn.Flatten())
    space.name = "pixels"
    real, same, dark = images(20), images(20, 1), images(20, 2) / 2
    rows = scored_sets(space, real, dict(same=same, dark=dark), seed=4)
    for row, x in zip(rows, (same, dark)):
        features = (compute_features(space, o, progress=False) for o in (real, x))
        alone = compare_sets(*features, seed=4, progress=False)
        for key in ("frechet", "precision", "recall", "feature_space"):
            assert row[key] == alone[key]
        assert row["diversity"] == diversity(x, seed=4)
    assert rows[0]["frechet"]["value"] < rows[1]["frechet"]["value"]
