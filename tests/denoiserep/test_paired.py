"Paired statistics, against scipy"

import numpy as np
import pytest
import torch
from scipy import stats

from denoise_study.core import t_interval, two_level_bootstrap
from denoise_study.denoiserep import checked_differences, equivalence, holm, mcnemar, sign_flip


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(3))
def test_paired_statistics_agree_with_scipy(seed):
    d = torch.randn(8, generator=gen(seed)).double() + 0.3
    r = t_interval(d)
    lib = stats.ttest_1samp(d.numpy(), 0).confidence_interval(0.95)
    assert (r.low, r.high) == pytest.approx((lib.low, lib.high))
    exact = stats.permutation_test(
        (d.numpy(),),
        lambda x, axis=-1: np.abs(x.mean(axis)),
        permutation_type="samples",
        n_resamples=np.inf,
        alternative="greater",
    )
    assert sign_flip(d) == pytest.approx(exact.pvalue)
    sides = (-0.5, "greater"), (0.5, "less")
    one = [stats.ttest_1samp(d.numpy(), m, alternative=a).pvalue for m, a in sides]
    assert equivalence(d, 0.5)["p"] == pytest.approx(max(one))


def test_mcnemar_is_a_binomial_test_on_changes():
    a, b = torch.tensor([1, 1, 1, 0, 0, 1, 1]), torch.tensor([1, 0, 0, 1, 0, 0, 0])
    p = pytest.approx(stats.binomtest(4, 5).pvalue)
    assert mcnemar(a, b) == dict(gained=4, lost=1, p=p)
    assert mcnemar(a, a)["p"] == 1


def test_bootstrap_over_images_is_wider_than_over_seeds():
    a = (torch.rand(6, 300, generator=gen()) < 0.8).double()
    b = a.clone()
    b[:, :12] = 1 - b[:, :12]
    r = two_level_bootstrap(b, a, n_boot=400)
    assert r.value == pytest.approx(float((b - a).mean())) and r.low < r.value < r.high


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: checked_differences([1.0]), "at least two seeds"),
        (lambda: sign_flip([1.0, float("nan")]), "NaN"),
        (lambda: sign_flip(torch.ones(21)), "at most 20"),
        (lambda: equivalence([1.0, 2.0], 0), "margin: a positive"),
        (lambda: mcnemar([1, 0], [1]), "the same ones"),
    ],
)
def test_statistics_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_holm_never_lets_one_overtake():
    p = [0.04, 0.001, 0.03, 0.5]
    assert holm(p) == pytest.approx([0.09, 0.004, 0.09, 0.5]) and holm(p)[2] >= holm(p)[1]
