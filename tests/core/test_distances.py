"The Fréchet distance against scipy, closed forms and the delta method"

import numpy as np
import pytest
import torch

from denoise_study.core import Features, frechet, frechet_interval, mean_and_factor, Moments


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(n, dim, seed=0, **kw):
    return torch.randn(n, dim, generator=gen(seed), **kw)


def by_scipy(a, b):
    from scipy.linalg import sqrtm

    (m1, c1), (m2, c2) = [(o.double().mean(0), o.double().T.cov()) for o in (a, b)]
    return (((m1 - m2) ** 2).sum() + (c1 + c2).trace()).item() - 2 * np.trace(
        sqrtm((c1 @ c2).numpy())
    ).real


@pytest.mark.parametrize("dim,n", [(2, 50), (16, 200), (64, 500), (200, 1000)])
def test_frechet_equals_scipy(dim, n):
    scale = torch.logspace(0, -2, dim)
    a, b = normal(n, dim) * scale + 0.3, normal(n + 7, dim, 1) * scale.flip(0)
    assert frechet(a, b) == pytest.approx(by_scipy(a, b), rel=1e-9)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-10)


def test_frechet_equals_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid")
    a, b = normal(300, 32).double(), 1.5 * normal(300, 32, 1).double() + 0.2
    ref = fid._compute_fid(a.mean(0), a.T.cov(), b.mean(0), b.T.cov()).item()
    assert frechet(a, b) == pytest.approx(ref, rel=1e-6)


def test_frechet_closed_forms():
    z = normal(1000, 2).double()
    z = (z - z.mean(0)) @ torch.linalg.inv(
        torch.linalg.cholesky(z.T.cov())
    ).T  # sample mean 0 and covariance I, exactly
    assert frechet(z, 2 * z + torch.tensor([3.0, 4.0])) == pytest.approx(27, rel=1e-12)
    assert frechet(z, z) == pytest.approx(0, abs=1e-12)
    d1, d2 = torch.tensor([1.0, 3.0]).double(), torch.tensor([2.0, 5.0]).double()
    assert frechet(z * d1, z * d2) == pytest.approx(((d1 - d2) ** 2).sum().item(), rel=1e-12)


@pytest.mark.parametrize("n,m,dim", [(20, 30, 64), (20, 200, 64), (64, 64, 64), (65, 64, 64)])
def test_frechet_with_few_images(n, m, dim):
    "Thin factors against the definition, with the root of S1^1/2 S2 S1^1/2 from eigenvectors"
    a, b = normal(n, dim).double(), normal(m, dim, 1).double() + 0.1

    def root(c):
        w, v = torch.linalg.eigh(c)
        return (v * w.clamp(min=0).sqrt()) @ v.T

    c1, c2 = a.T.cov(), b.T.cov()
    ref = (
        ((a.mean(0) - b.mean(0)) ** 2).sum()
        + (c1 + c2).trace()
        - 2 * root(root(c1) @ c2 @ root(c1)).trace()
    )
    with pytest.warns(UserWarning, match="singular"):
        assert frechet(a, b) == pytest.approx(ref.item(), rel=1e-6)
        assert frechet(Moments().update(a), Moments().update(b)) == pytest.approx(
            frechet(a, b), rel=1e-9
        )
        assert frechet(a, a) == pytest.approx(0, abs=1e-10)


def test_frechet_with_dead_features():
    a, b = normal(300, 20), normal(300, 20, 1)
    a[:, 3], b[:, 3], b[:, 7] = 0, 0, b[:, 6]
    assert frechet(a, b) == pytest.approx(by_scipy(a, b), rel=1e-5)
    assert frechet(a, a) == pytest.approx(0, abs=1e-10)


def test_frechet_of_a_collapsed_generator():
    "No spread at all: the shift of the mean, and the whole variance of the other set"
    x, dim = normal(100, 8), 8
    for value in (0.0, 1.0, 0.1):
        one = torch.full((100, dim), value)
        expected = (x.double().mean(0) - one[0].double()).square().sum() + x.double().var(0).sum()
        for pair in ((x, one), (one, x)):
            assert frechet(*pair) == pytest.approx(float(expected), rel=1e-9)
        assert frechet(Moments().update(x), Moments().update(one)) == pytest.approx(expected)
        assert frechet(one, one) == pytest.approx(0, abs=1e-12)
        assert frechet(one, one + 3) == pytest.approx(9 * dim, rel=1e-6)
    assert frechet_interval(x, one, n_boot=10, progress=False).low > 0


def test_moments_stream():
    x = normal(1000, 12).double() + 1e4  # a mean that sums of squares would not survive
    m = Moments()
    for b in x.split([1, 400, 3, 596]):
        m.update(b)
    torch.testing.assert_close(m.mean, x.mean(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(m.cov, x.T.cov(), rtol=0, atol=1e-12)
    assert len(m) == 1000


def test_interval_agrees_with_the_delta_method():
    "Standard error from the influence function, T the optimal map"
    a, b = normal(400, 6).double() * torch.linspace(0.5, 2, 6), normal(300, 6, 1).double() + 0.7

    def influence(x, y):
        c1, c2, d = x.T.cov(), y.T.cov(), x - x.mean(0)
        L = torch.linalg.cholesky(c1)
        w, v = torch.linalg.eigh(L.T @ c2 @ L)
        inv = torch.linalg.inv(L)
        T = inv.T @ (v * w.sqrt()) @ v.T @ inv
        torch.testing.assert_close(T @ c1 @ T, c2)
        return (d @ (torch.eye(6) - T) * d).sum(1) + 2 * d @ (x.mean(0) - y.mean(0))

    se = (influence(a, b).var() / 400 + influence(b, a).var() / 300).sqrt().item()
    r = frechet_interval(a, b, n_boot=400, progress=False)
    assert (r.high - r.low) / (2 * 1.96) == pytest.approx(se, rel=0.15)
    assert r.low < r.value < r.high and r.bias > 0
    assert r == frechet_interval(a, b, n_boot=400, progress=False)


def test_resampling_by_weights_is_resampling():
    x, w = normal(50, 4).double(), torch.randint(0, 4, (50,), generator=gen())
    mean, L = mean_and_factor(x, w)
    rows = x.repeat_interleave(w, 0)
    torch.testing.assert_close(mean, rows.mean(0))
    torch.testing.assert_close(L @ L.T, rows.T.cov())


def test_distance_faults():
    a = normal(30, 4)
    with pytest.raises(TypeError, match="`fake` is a Moments"):
        frechet_interval(a, Moments().update(a))
    with pytest.raises(ValueError, match="level"):
        frechet_interval(a, a, level=95)
    with pytest.raises(ValueError, match="n_boot"):
        frechet_interval(a, a, n_boot=1)
    with pytest.raises(ValueError, match="`features`"):
        Moments().update(a).update(a[:, :2])
    with pytest.raises(ValueError, match="'B'.*'A'"):
        Moments("A").update(Features(a, "B"))
    with pytest.warns(UserWarning, match="`fake`: n=4 <= dim=4"):
        frechet(a, a[:4])
