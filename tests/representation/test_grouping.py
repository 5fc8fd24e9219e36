"k-means, separation and its Gaussian control"

import math

import numpy as np
import pytest
import torch

from helpers import blind_denoiser, pictures, randn
from helpers_probes import read
from denoise_study.core import mean_and_factor
from denoise_study.representation import clusters, gaussian_like, plot_clusters, separation

torch.set_num_threads(1)
D = blind_denoiser()
X = pictures()
A = read(D, X)


@pytest.mark.parametrize(
    "n, d, k, low, high",
    [
        (40_000, 1, 2, 2.6, 2.7),
        (20_000, 2, 10, 2.7, 3.1),
        (5000, 20, 20, 3.2, 3.8),
        (5000, 100, 50, 3.8, 4.4),
    ],
)
def test_kmeans_separates_one_gaussian(n, d, k, low, high):
    "One isotropic Gaussian, no clusters at all"
    x = randn(n, d)
    t = separation(x, dict(clusters=clusters(x, k, n_init=1).labels), pairs=None, gaussian=False)
    assert low < t.ratio.min() < high and len(t) == k * (k - 1) // 2


def test_separation_by_hand():
    x, y = randn(50, 3) * torch.tensor([1.0, 2.0, 3.0]), torch.arange(50) % 3
    t = separation(x, dict(classes=y), gaussian=False).set_index(["p", "q"])
    for p, q in (0, 1), (0, 2), (1, 2):
        a, b = x[y == p].double().numpy(), x[y == q].double().numpy()
        gap = a.mean(0) - b.mean(0)
        u = gap / np.linalg.norm(gap)
        S = math.sqrt(((a @ u).var() + (b @ u).var()) / 2)
        assert t.loc[(p, q)].tolist()[1:] == pytest.approx(
            [np.linalg.norm(gap), S, np.linalg.norm(gap) / S]
        )


def test_real_clusters_beat_the_gaussian_and_noise_does_not():
    y = torch.arange(600) % 6
    blobs = 4 * randn(6, 8, seed=9)[y] + 0.3 * randn(600, 8)
    for x, real in (blobs, True), (randn(600, 8), False):
        found = clusters(x, 6)
        t = separation(x, dict(clusters=found.labels, classes=y)).groupby("groups").ratio.median()
        assert (t["clusters"] > 2 * t["Gaussian"]) == real and (
            t["clusters"] < 1.2 * t["Gaussian"]
        ) == (not real)
        assert set(t.index) == {"clusters", "classes", "Gaussian"} and (t["classes"] > 2) == real
        if real:
            assert all(y[found.labels == c].unique().numel() == 1 for c in range(6))


def test_gaussian_control_has_the_moments():
    x = randn(4000, 3) @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 0.2]]) + 5
    mean, root = mean_and_factor(x)
    torch.testing.assert_close(mean, x.double().mean(0))
    torch.testing.assert_close(root @ root.T, x.double().T.cov())
    z = gaussian_like(x)
    assert z.shape == x.shape and torch.allclose(z.mean(0), x.double().mean(0), atol=0.1)
    torch.testing.assert_close(z.T.cov(), x.double().T.cov(), rtol=0.1, atol=0.05)


def test_clusters_equal_sklearn_at_any_scale():
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    x = randn(300, 4) + 3 * randn(5, 4, seed=3)[torch.arange(300) % 5]
    a, own = clusters(x, 5), KMeans(5, n_init=10, random_state=42).fit(x.numpy())
    assert adjusted_rand_score(a.labels, own.labels_) == 1 and a.inertia == pytest.approx(
        own.inertia_, rel=1e-4
    )
    assert adjusted_rand_score(clusters(1e-9 * x, 5).labels, a.labels) == 1
    assert adjusted_rand_score(clusters(x, 5, batch=100).labels, a.labels) > 0.9
    assert torch.equal(clusters(x, 5).labels, a.labels) and a.sizes.sum() == 300
    torch.testing.assert_close(
        a.centres, torch.stack([x[a.labels == c].mean(0) for c in range(5)]), rtol=1e-4, atol=1e-5
    )


def test_clusters_and_ten_of_many_classes_are_drawn():
    x, y = randn(60, 5), torch.arange(60) % 12
    axs = plot_clusters(separation(x, dict(classes=y), pairs=7), x, y, perplexity=5)
    assert sum(len(o.get_offsets()) for o in axs[1].collections) == 50  # ten of the twelve classes
    again = plot_clusters(separation(x, dict(classes=y), pairs=7), x, y, perplexity=5)
    assert np.array_equal(
        axs[1].collections[0].get_offsets(), again[1].collections[0].get_offsets()
    )


CALLS = {
    "phi with nan": (lambda: clusters(torch.full((9, 2), math.nan), 2), "^`phi`"),
    "more clusters than images": (lambda: clusters(A.phi, 13), "^k: got 13 clusters for 12 images"),
    "one cluster": (lambda: clusters(A.phi, 1), "^k"),
    "groups of one image": (lambda: separation(A.phi, dict(own=torch.arange(12))), "^groups"),
    "perplexity": (
        lambda: plot_clusters(separation(A.phi, dict(c=torch.arange(12) % 2)), A.phi),
        "^perplexity",
    ),
}


@pytest.mark.parametrize("call, words", CALLS.values(), ids=CALLS)
def test_bad_input_is_refused_with_a_reason(call, words):
    with pytest.raises(ValueError, match=words):
        call()
