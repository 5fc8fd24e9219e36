"ADE20K's folders: masks from which nothing could be learned are refused"

import numpy as np
import pytest
from PIL import Image

from denoise_study.denoiserep import ade_dls


def write(folder, numbers):
    "Masks that are coin flips between two numbers"
    rng = np.random.default_rng(0)
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (folder / kind / split).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"images/{split}/{i}.jpg")
            mask = np.asarray(numbers)[rng.integers(0, 2, (32, 32))].astype(np.uint8)
            Image.fromarray(mask).save(folder / f"annotations/{split}/{i}.png")
    return folder


@pytest.mark.parametrize("numbers", [(0, 1), (0, 255)])
def test_fewer_than_two_classes(tmp_path, numbers):
    with pytest.raises(ValueError, match=rf"at least two classes .* only \[{numbers[0]}, "):
        ade_dls(write(tmp_path / "a", numbers), 32)


def test_the_number_of_the_first_class_can_be_given(tmp_path):
    folder = write(tmp_path / "a", (0, 1))
    assert ade_dls(folder, 32, n_classes=2, first=0, bs=2).info.n_train == 3
    assert ade_dls(write(tmp_path / "b", (1, 2)), 32, bs=2).info.n_train == 3
