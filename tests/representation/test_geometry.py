"Neighbours, label agreement and linear probes against scikit-learn and by hand"

import math

import numpy as np
import pytest
import torch

from helpers import blind_denoiser, gen, pictures, randn
from helpers_probes import read
from denoise_study.representation import label_agreement, linear_probe, neighbours, probe_hits
from denoise_study.representation import shared_labels

torch.set_num_threads(1)
D = blind_denoiser()
X = pictures()
A = read(D, X)


@pytest.mark.parametrize("bs", [3, 512])
def test_neighbours_equal_sklearn(bs):
    from sklearn.neighbors import NearestNeighbors

    x, q = randn(60, 8), randn(11, 8, seed=1)
    index, cos = neighbours(q, x, 5, bs=bs)
    dist, own = (
        NearestNeighbors(n_neighbors=5, metric="cosine").fit(x.numpy()).kneighbors(q.numpy())
    )
    np.testing.assert_array_equal(index, own)
    np.testing.assert_allclose(cos, 1 - dist, atol=1e-6)
    index, cos = neighbours(x, k=4, bs=bs)
    _, own = NearestNeighbors(n_neighbors=5, metric="cosine").fit(x.numpy()).kneighbors(x.numpy())
    np.testing.assert_array_equal(index, own[:, 1:])


def test_brightness_wins_raw_pixels():
    "Two patterns on dark and bright ground: raw, the bright look alike; centred, the patterns"
    t = torch.arange(16.0) * 2 * math.pi / 16
    patterns = torch.stack([t.sin().expand(16, 16), (2 * t).sin().expand(16, 16)])
    x = torch.tensor([0.2, 0.9, 0.2, 0.9])[:, None, None, None] + 0.1 * patterns[[0, 0, 1, 1], None]
    assert neighbours(x, k=1)[0][[1, 3], 0].tolist() == [3, 1] and neighbours(x, k=1, centre=True)[
        0
    ][:, 0].tolist() == [1, 0, 3, 2]
    index, cos = neighbours(pictures(9), k=8, centre=True)
    own = np.corrcoef(pictures(9).flatten(1).double().numpy())
    np.testing.assert_allclose(cos, np.take_along_axis(own, index.numpy(), 1), atol=1e-5)


def test_agreement_by_hand_and_its_chance():
    y = torch.arange(90) % 3
    apart = torch.eye(3)[y] + 0.01 * torch.rand(90, 3, generator=gen())
    assert label_agreement(apart, y, k=7).value == 1
    r = label_agreement(randn(400, 6), torch.randint(4, (400,), generator=gen()), k=5)
    assert (
        r.chance == pytest.approx(0.25, abs=0.02)
        and abs(r.value - r.chance) < 0.04
        and r.low < r.value < r.high
    )
    x, y = randn(30, 4), torch.randint(2, (30,), generator=gen(2))
    own = np.mean([(y[j] == y[i]).item() for i in range(30) for j in neighbours(x, k=2)[0][i]])
    assert label_agreement(x, y, k=2).value == pytest.approx(own)
    assert (
        label_agreement(x[:4], torch.tensor([0, 0, 0, 1]), k=1).chance == 0.5
    )  # two of three others, and none


def test_linear_probe_finds_what_is_linear_and_nothing_else():
    y = torch.arange(300) % 3
    x = torch.eye(3)[y] * 1e-4 + 1e-5 * randn(300, 3)  # the size of phi in a fresh network
    x = torch.cat([x, torch.zeros(300, 2)], 1)  # dead channels
    half = torch.arange(300) < 150
    probe = lambda labels: linear_probe(x[half], labels[half], x[~half], labels[~half])
    assert probe(y).value > 0.99
    shuffled = probe(y[torch.randperm(300, generator=gen())])
    assert (
        abs(shuffled.value - 1 / 3) < 0.13
        and abs(shuffled.chance - 1 / 3) < 0.05
        and shuffled.n_train == 150
        and shuffled.n == 150
    )


CALLS = {
    "collapsed phi": (
        lambda: neighbours(A.phi.x * (torch.arange(12) > 1)[:, None]),
        "^query: 2 of 12 rows are zero",
    ),
    "constant images": (
        lambda: neighbours(torch.full((4, 1, 8, 8), 0.5), centre=True),
        "4 of 4 rows are constant",
    ),
    "more neighbours than images": (lambda: neighbours(A.phi, k=12), "^k: got 12; there are 11"),
    "one class": (
        lambda: linear_probe(A.phi, torch.zeros(12), A.phi, torch.zeros(12)),
        "^train_labels",
    ),
}


@pytest.mark.parametrize("call, words", CALLS.values(), ids=CALLS)
def test_bad_input_is_refused_with_a_reason(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_scores_of_images_average_to_the_numbers():
    x, y = randn(60, 5), torch.randint(3, (60,), generator=gen())
    shares = shared_labels(x, y, 4)
    assert shares.shape == (60,) and shares.mean() == pytest.approx(label_agreement(x, y, 4).value)
    half = torch.arange(60) < 30
    split = x[half], y[half], x[~half], y[~half]
    hits = probe_hits(*split)
    assert hits.dtype == torch.bool
    assert hits.double().mean() == pytest.approx(linear_probe(*split).value)
