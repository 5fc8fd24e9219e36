"""Train, valid and test as a function of a seed, with copies on one side."""

import json

import numpy as np
import pytest
import torch

from denoise_study.core import DataInfo, draw_sides, load_arrays, open_splits
from helpers_coredata import all_bytes, cpu_dls, random_images, save_all


def test_without_copies_the_draw_is_a_permutation_that_is_cut():
    side = draw_sides(list("abcdefghij"), 2, 3, seed=7)
    perm = np.random.default_rng(7).permutation(10)
    assert (side[perm] == [1] * 2 + [2] * 3 + [0] * 5).all()


def test_the_split_depends_on_the_seed_only():
    a = load_arrays("digits")
    b = load_arrays("digits", size=16, pad_to=32)
    c = load_arrays("digits", seed=1)
    assert all(torch.equal(a[k][1], b[k][1]) for k in a)
    assert not torch.equal(a["valid"][1], c["valid"][1])
    assert all_bytes(a) == all_bytes(c)


@pytest.mark.parametrize("as_files", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_copies_stay_on_one_side(tmp_path, as_files, seed):
    a = random_images(30, 4, 4)
    a = np.concatenate([a, a[:20], a[:5]])
    data = save_all(tmp_path / "f", a) if as_files else a
    arrays = load_arrays(data, valid=0.2, test=0.2, seed=seed)
    keys = [{o.numpy().tobytes() for o in u} for u, _ in arrays.values()]
    assert sum(len(u) for u, _ in arrays.values()) == 55
    assert len(set.union(*keys)) == 30 == sum(map(len, keys))


def test_counts_and_shares():
    info = cpu_dls(random_images(), valid=7, test=0.25).info
    assert (info.n_train, info.n_valid, info.n_test) == (23, 7, 10)
    dls = cpu_dls(random_images(), valid=0, test=0)
    assert dls.info.n_train == 40 and len(dls.valid) == len(dls.test) == 0 and [*dls.valid] == []


@pytest.mark.parametrize(
    "kwargs, word",
    [
        (dict(valid=1.0), "valid"),
        (dict(valid=-1), "valid"),
        (dict(valid=40), "valid"),
        (dict(valid=True), "valid"),
        (dict(test="a"), "test"),
        (dict(valid=0.5, test=0.5), "valid, test"),
        (dict(seed=-1), "seed"),
        (dict(seed=0.5), "seed"),
        (dict(bs=0), "bs"),
        (dict(bs=2.0), "bs"),
        (dict(size=0), "size"),
        (dict(size=(8,)), "size"),
        (dict(size=8.0), "size"),
        (dict(pad_to=0), "pad_to"),
        (dict(crop="random"), "crop"),
        (dict(cache="no"), "cache"),
        (dict(range=(1, 1)), "range"),
    ],
)
def test_bad_arguments_are_named(kwargs, word):
    with pytest.raises(ValueError, match=f"^{word}: "):
        cpu_dls(random_images(), **kwargs)


def test_info_survives_json_and_is_that_of_the_loaders():
    info = cpu_dls("fashion_mini", pad_to=8, range=(0, 1)).info
    assert info == open_splits("fashion_mini", pad_to=8).info((0, 1))
    assert DataInfo(**json.loads(json.dumps(info.to_dict()))) == info and hash(info)
