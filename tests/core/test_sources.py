"""Images in memory and parts of them."""

import numpy as np
import pytest
import torch

from denoise_study.core import ArraySource, label_tensor, load_arrays, Subset, take_rows
from helpers_coredata import random_images


@pytest.mark.parametrize("rows", [[2, 0, 2], torch.tensor([1]), range(3), torch.tensor([]).long()])
def test_rows_are_those_of_plain_indexing(rows):
    table = torch.rand(4, 3, 2)
    assert torch.equal(take_rows(table, rows), table[[int(r) for r in rows]])


@pytest.mark.parametrize("labels", [[1, 2], [0.0, 1.0, 2.0], [0, -2, 1], [[0, 1, 2]]])
def test_labels_that_are_none_are_refused(labels):
    with pytest.raises(ValueError, match="^y: one whole number for each of the 3"):
        label_tensor(labels, 3, "y")


def test_no_labels_are_minus_one():
    assert label_tensor(None, 2).tolist() == [-1, -1]
    assert label_tensor([4, -1], 2).dtype == torch.int64


def test_a_source_answers_for_its_images():
    a = random_images(10, 6, 5, 3)
    source = ArraySource.from_array(a, np.arange(10))
    assert (len(source), source.channels, source.hw) == (10, 3, (6, 5))
    assert torch.equal(source.batch([3, 1]), torch.tensor(a[[3, 1]]).permute(0, 3, 1, 2))
    assert source.labels.tolist() == list(range(10))
    with pytest.raises(TypeError, match="^images: a uint8 tensor"):
        ArraySource(torch.zeros(2, 1, 8, 8))


def test_a_part_of_a_part_is_a_part():
    source = ArraySource.from_array(random_images(10), np.arange(10))
    part = Subset(source, torch.tensor([8, 3, 5]))
    inner = Subset(part, torch.tensor([2, 0]))
    assert inner.labels.tolist() == [5, 8] and len(inner) == 2
    assert torch.equal(inner.batch([1]), source.batch([8]))


def test_equal_images_have_equal_digests():
    a = random_images(5)
    keys = ArraySource.from_array(np.concatenate([a, a[:2]])).digests()
    assert keys[:2] == keys[5:] and len(set(keys)) == 5


def test_prepare_keeps_labels_and_leaves_the_original_alone():
    source = ArraySource.from_array(random_images(5), range(5))
    before = source.images.clone()
    padded = source.prepare((4, 4), pad=(1, 2, 3, 4))
    assert padded.hw == (11, 7) and padded.labels.tolist() == list(range(5))
    assert torch.equal(source.images, before)


@pytest.mark.parametrize(
    "data, error",
    [
        (random_images().astype(np.float32), ValueError),
        (random_images()[0], ValueError),
        ((random_images(), [1, 2]), ValueError),
        ((3, 4), TypeError),
    ],
)
def test_bad_arrays_in_memory(data, error):
    with pytest.raises(error, match="^data"):
        load_arrays(data)
