"A study: a clock, and the same images in every form"

import pytest
import torch

from denoise_study.core import first_images, image_dls, Study


def test_a_stage_is_announced_and_timed(tmp_path, capsys):
    study = Study(image_dls("digits", device="cpu"), str(tmp_path))
    assert study.folder == tmp_path
    with study.stage("training"):
        pass
    assert capsys.readouterr().out == "training ...\n" and 0 <= study.seconds["training"] < 1
    with pytest.raises(KeyError), study.stage("broken"):
        raise KeyError
    assert "broken" not in study.seconds


@pytest.mark.parametrize(
    "n_eval, n, least, expected",
    [(256, 30, 1, 30), (10_000, 30, 1, 30), (128, 30, 1, 15), (16, 30, 1, 1), (16, 4, 2, 2)],
)
def test_a_trial_is_short_in_every_part(tmp_path, n_eval, n, least, expected):
    "As usual with as many test images as usual, and never longer"
    study = Study(image_dls("digits", device="cpu"), tmp_path, n_eval=n_eval)
    assert study.scaled(n, least) == expected


def test_reopened_data_are_the_same_images(tmp_path):
    source = dict(data="fashion_mini", bs=32)
    study = Study(image_dls(**source, device="cpu"), tmp_path, source=source)
    blind = study.reopened(range=(0, 1), pad_to=8)
    assert blind.info.size == (32, 32) and blind.info.range == (0, 1)
    for split in ("train", "valid", "test"):
        x = study.images(split, 5)
        y = first_images(blind, split, 5)[0]
        torch.testing.assert_close(y[..., 2:-2, 2:-2], (x + 1) / 2)
    assert len(study.images("test")) == 1000
