"Which run a file is of: what differs is refused by name, and the same run goes on in silence"

import shutil
import warnings

import numpy as np
import pytest
import torch
from helpers import quiet_fit
from helpers_training import Linear
from PIL import Image

from denoise_study.core import check_same_run, data_digest, denoise_learner, frozen_digest
from denoise_study.core import image_dls, read_tensors, write_tensors


def arrays(seed=0, n=200, **kw):
    images = np.random.default_rng(seed).integers(0, 256, (n, 8, 8), dtype=np.uint8)
    return image_dls(images, bs=64, device="cpu", **kw)


def digest(dls):
    return data_digest(dls.train.dataset)


def test_a_digest_is_that_of_the_bytes():
    assert digest(arrays()) == digest(arrays()) == digest(arrays(range=(0, 1)))
    assert len({digest(arrays()), digest(arrays(1)), digest(arrays(n=201))}) == 3
    assert data_digest([1, 2, 3]) is None


def pictures(folder, seed=0):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{i}.bmp")
    return folder


def test_a_folder_is_the_same_wherever_it_lies(tmp_path):
    first = pictures(tmp_path / "a")
    shutil.copytree(first, tmp_path / "b")

    def read(folder, **kw):
        return digest(image_dls(folder, device="cpu", **kw))

    assert read(first) == read(tmp_path / "b")
    assert read(first) != read(pictures(tmp_path / "c", 1))  # names and sizes are equal
    assert read(first) != read(first, size=4)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "b/more.bmp")
    assert read(first) != read(tmp_path / "b")


def test_frozen_weights_belong_to_a_run():
    a, b = Linear().requires_grad_(False), Linear().requires_grad_(False)
    assert frozen_digest(Linear()) is None and frozen_digest(a) == frozen_digest(b)
    b.w.data[0, 0, 0] = 2
    assert frozen_digest(a) != frozen_digest(b)


def learner(folder, dls=None, **kw):
    return denoise_learner(dls or arrays(), Linear(), folder=folder, **kw)


@pytest.mark.parametrize(
    "other,field",
    [
        (dict(dls=arrays(1)), "images"),
        (dict(seed=1), "seed"),
        (dict(bf16=True), "precision"),
        (dict(dls=arrays(seed=0, valid=0.2)), "images|train_valid_test"),
        (dict(ema=0.5), "ema"),
        (dict(clip=1.0), "clip"),
        (dict(lr=0.5), "rates"),
    ],
)
def test_another_run_is_refused_by_the_field_that_differs(tmp_path, other, field):
    learn = learner(tmp_path)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    before = (tmp_path / "state.safetensors").read_bytes()
    again = learner(tmp_path, **other)
    with pytest.raises(ValueError, match=rf"({field}): this run has .*another folder.*--fresh"):
        with again.no_bar(), again.no_logging():
            again.fit(1)
    assert (tmp_path / "state.safetensors").read_bytes() == before
    anew = learner(tmp_path, fresh=True, **other)
    with anew.no_bar(), anew.no_logging():
        anew.fit(1)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1


def test_the_same_run_goes_on_in_silence(tmp_path):
    one = quiet_fit(learner(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        two = quiet_fit(learner(tmp_path))
    assert torch.equal(one.model.w, two.model.w)


def test_a_schedule_is_not_a_constant_rate(tmp_path):
    quiet_fit(learner(tmp_path))
    with pytest.raises(ValueError, match="rates: "):
        again = learner(tmp_path)
        with again.no_bar(), again.no_logging():
            again.fit(1, 1e-2)


def test_a_state_without_identity_goes_on_with_a_warning(tmp_path):
    one = quiet_fit(learner(tmp_path))
    tensors, desc = read_tensors(tmp_path / "state.safetensors")
    del desc["run"]
    write_tensors(tmp_path / "state.safetensors", tensors, desc)
    with pytest.warns(UserWarning, match="earlier version.*not checked"):
        two = quiet_fit(learner(tmp_path))
    assert torch.equal(one.model.w, two.model.w)


def test_fields_that_a_file_lacks_are_not_compared():
    check_same_run(dict(seed=0, new=1), dict(seed=0, old=2), "x")
    with pytest.raises(ValueError, match="seed: this run has 0, but x is of a run with 1"):
        check_same_run(dict(seed=0), dict(seed=1), "x")
