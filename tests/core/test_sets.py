"Precision and recall against plain loops, and one record of two sets"

import json

import numpy as np
import pytest
import torch
from torch import nn

from denoise_study.core import compare_sets, compute_features, Features, frechet, frechet_interval
from denoise_study.core import knn_precision_recall, prd
from denoise_study.core.sets import _f_max, _prd_curve


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=6, c=1, side=32, seed=0):
    return torch.rand(n, c, side, side, generator=gen(seed))


def normal(n, dim, seed=0, **kw):
    return torch.randn(n, dim, generator=gen(seed), **kw)


def knn_by_loops(real, fake, k):
    "Kynkäänniemi et al. 2019 in plain loops over numpy norms"
    norm = lambda a, b: np.linalg.norm(a - b)
    radii = lambda s: [
        sorted(norm(s[i], s[j]) for j in range(len(s)) if j != i)[k - 1] for i in range(len(s))
    ]
    inside = lambda pts, s, r: np.mean(
        [any(norm(p, c) <= rad for c, rad in zip(s, r)) for p in pts]
    )
    return inside(fake, real, radii(real)), inside(real, fake, radii(fake))


def test_set_faults():
    a = normal(30, 4)
    for f in (frechet, frechet_interval, knn_precision_recall, prd):
        with pytest.raises(ValueError, match="`fake` has dim 3"):
            f(a, a[:, :3])
        with pytest.raises(ValueError, match="`fake` is from 'B'.*'A'"):
            f(Features(a, "A"), Features(a, "B"))
        with pytest.raises(ValueError, match="`fake` has 1 images"):
            f(a, a[:1])
        with pytest.raises(ValueError, match="`real` holds NaN"):
            f(a.where(a > 0, torch.nan), a)
        with pytest.raises(TypeError, match="`real` is torch.int64"):
            f(a.long(), a)
        with pytest.raises(TypeError, match="`real` is a ndarray"):
            f(a.numpy(), a)
        with pytest.raises(ValueError, match="`real` has shape"):
            f(a[0], a)
    with pytest.raises(ValueError, match="k: a whole number of at least 1"):
        knn_precision_recall(a, a, k=0)
    with pytest.raises(ValueError, match="`clusters`"):
        prd(a, a, clusters=61)


@pytest.mark.parametrize("k,bs", [(1, 7), (3, 16), (5, 1000)])
def test_knn_equals_loops(k, bs):
    a, b = normal(40, 3), normal(50, 3, 1) * 1.3 + 0.4
    r = knn_precision_recall(a, b, k=k, bs=bs)
    assert (r.precision.value, r.recall.value) == pytest.approx(
        knn_by_loops(a.double().numpy(), b.double().numpy(), k)
    )


def test_knn_far_from_the_origin_and_with_copies():
    a, b = normal(60, 5), normal(60, 5, 1)
    near, far = knn_precision_recall(a, b), knn_precision_recall(a.double() + 1e6, b.double() + 1e6)
    assert (near.precision.value, near.recall.value) == (far.precision.value, far.recall.value)
    copies = normal(5, 300).repeat(5, 1)  # radius 0: only the copies themselves are inside
    same = knn_precision_recall(copies, copies)
    assert (same.precision.value, same.recall.value) == (1, 1)
    assert knn_precision_recall(copies, copies + 0.01).precision.value == 0


def test_roles():
    "Dropping modes costs recall; the swap swaps the two"
    centres = torch.eye(4) * 10
    pick = lambda k, seed: (
        centres[torch.randint(k, (200,), generator=gen(seed))] + 0.2 * normal(200, 4, seed + 9)
    )
    real, fake = pick(4, 0), pick(2, 1)
    r, s = knn_precision_recall(real, fake), knn_precision_recall(fake, real)
    assert r.precision.value > 0.85 and r.recall.value < 0.6
    assert (r.precision.value, r.recall.value) == (s.recall.value, s.precision.value)
    p = prd(real, fake, clusters=4, runs=2, n_boot=5)
    q = prd(fake, real, clusters=4, runs=2, n_boot=5)
    assert p.f1_8.value > 0.9 and p.f8.value < 0.6
    assert (p.f8.value, p.f1_8.value) == pytest.approx((q.f1_8.value, q.f8.value), abs=1e-6)


def test_prd_curve_equals_the_definition():
    p, q = np.random.default_rng(0).dirichlet(np.ones(7), 2)
    precision, recall = (o.numpy() for o in _prd_curve(torch.tensor(p), torch.tensor(q)))
    for i, lam in enumerate(np.tan(np.linspace(1e-10, np.pi / 2 - 1e-10, 1001))):
        assert precision[i] == pytest.approx(np.minimum(lam * p, q).sum(), abs=1e-9)
        assert recall[i] == pytest.approx(np.minimum(p, q / lam).sum(), abs=1e-9)
    assert recall[0] == pytest.approx(1) and precision[-1] == pytest.approx(1)
    same = _prd_curve(torch.tensor(p), torch.tensor(p))
    assert _f_max(*same, 8).item() == pytest.approx(1) and _f_max(
        *same, 1 / 8
    ).item() == pytest.approx(1)
    disjoint = _prd_curve(torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double())
    assert _f_max(*disjoint, 8).item() == 0


def test_prd_intervals_and_seeds():
    a, b = normal(200, 3), normal(300, 3, 1) + 0.5
    r = prd(a, b, runs=2, n_boot=30)
    assert r.n == 200 and r.f8.low <= r.f8.value <= r.f8.high <= 1
    again = prd(a, b, runs=2, n_boot=30)
    assert r.f8 == again.f8 and r.f1_8 == again.f1_8


def test_compare_sets():
    x = images(60, 1, 4)
    r = compare_sets(x[:30], x[30:], nn.Flatten(), n_boot=5, progress=False)
    assert json.loads(json.dumps(r)) == r
    assert (r.n_real, r.n_fake, r.dim, r.singular) == (
        30,
        30,
        16,
        False,
    ) and "Flatten" in r.feature_space
    f = compute_features(nn.Flatten(), x, progress=False)
    again = compare_sets(f[:30], f[30:], n_boot=5, progress=False)
    assert {k: v for k, v in r.items() if k != "seconds"} == {
        k: v for k, v in again.items() if k != "seconds"
    }
    assert r.frechet.value == frechet(f[:30], f[30:])
    with pytest.raises(ValueError, match="`space`"):
        compare_sets(x, x)
    with pytest.warns(UserWarning, match="singular"):
        assert compare_sets(f[:30], f[30:40], n_boot=5, progress=False).singular


def test_intervals_of_shares_hold_the_truth():
    """Over both sets: of 40 pairs of sets at least 34 intervals hold the mean. With the balls held
    fixed those of recall are less than half as wide, and fewer than 34 do"""
    for scale, name in ((0.9, "recall"), (1.2, "precision")):
        found = []
        for i in range(40):
            a, b = normal(150, 6, 2 * i), normal(150, 6, 2 * i + 1)
            found.append(knn_precision_recall(a, scale * b)[name])
        values = np.array([o.value for o in found])
        held = sum(o.low <= values.mean() <= o.high for o in found)
        width = np.mean([o.high - o.low for o in found])
        assert held >= 34 and width < 6 * values.std()
        fixed = [1.96 * (v * (1 - v) / 150) ** 0.5 for v in values]
        assert sum(abs(values - values.mean()) <= fixed) < held
