"The guide: whose noise, at which level, for whom; and algorithm 1 in a world with a known answer"

import numpy as np
import pytest
import torch

from denoise_study.denoiser import ascend
from denoise_study.representation import Guide
from helpers import gen, rand, randn
from helpers_selfguided import C, Linear, refused, RESET, small


def test_conditioner_noise_is_independent_new_and_follows_sigma():
    seen = []

    class Spy(Linear):
        def averages(self, x, sigma=None, taps=("mid",)):
            seen.append((x.detach().clone(), torch.as_tensor(sigma).clone()))
            return super().averages(x, sigma, taps)

    def correlation(a, b):
        return abs(np.corrcoef(a.flatten(), b.flatten())[0, 1])

    D = Spy(np.eye(400) * 0.01, np.eye(400)[:1])
    image, sigma = torch.full((1, 400, 1, 1), 0.5), torch.tensor([0.2, 0.4])
    guide = Guide(D, image, n_noise=1, seed=0, method="gd", steps=1)
    x = 0.5 + 0.3 * randn(2, 400, 1, 1)
    guide(x, sigma)
    z, s = (seen[0][0] - 0.5)[:, :, 0, 0], seen[0][1]
    assert torch.allclose(s, sigma) and torch.allclose(z.std(1), sigma, rtol=0.1)
    first = z / sigma[:, None]
    for other in ((x - 0.5)[:, :, 0, 0], first.flip(0)):  # the sample's noise, its neighbour's
        assert correlation(first, other) < 0.12
    seen.clear()
    guide(x, sigma)
    assert correlation(first, seen[0][0] - 0.5) < 0.12


def test_guide_is_off_where_it_should_be():
    D, x = small(), rand(4, 1, 16, 16)
    guide = Guide(D, rand(1, 1, 16, 16, seed=1), between=(0.1, 0.5), steps=2, tol=0.0)
    out = guide(x, torch.tensor([0.0, 0.05, 0.3, 0.9]))  # finished, too low, on, too high
    assert torch.equal(out[[0, 1, 3]], x[[0, 1, 3]]) and not torch.equal(out[2], x[2])
    report = guide.report()
    assert len(report) == 1 and report.image[0] == 2 and Guide(D, x[:1]).report().empty


def test_arrival_is_judged_by_the_noise_of_the_target():
    "phi is a pixel: an image that is its target under other noise is there, another has to come"
    D = Linear(np.eye(3) * 0.01, [[1.0, 0, 0]])
    clean = torch.tensor([0.2, 0.8]).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    noisy, level = clean + 0.05, torch.full((2,), 0.05)
    own, other = Guide(D, clean, n_noise=400), Guide(D, clean.flip(0), steps=1, lr=1e-9)
    assert torch.equal(own(noisy, level), noisy)
    other(noisy, level)
    assert own.report().there.all() and own.report().converged.all()
    assert not other.report().there.any() and not other.report().converged.any()
    assert np.allclose(own.report().floor, 2 * 0.05**2, rtol=0.2)
    assert np.allclose(own.report().over_floor, 0.5, rtol=0.3)


def test_the_callers_own_tolerance_takes_the_place_of_the_floor():
    D, x = small(), rand(1, 1, 16, 16)
    guide = Guide(D, x, steps=1, tol=0.0)
    guide(x + 0.3 * randn(1, 1, 16, 16), torch.tensor([0.3]))
    assert not guide.report().converged.any()


def test_several_targets_with_all_images_finished():
    D, x = small(), rand(4, 1, 16, 16)
    assert torch.equal(Guide(D, x[:2], 2)(x, torch.zeros(4)), x)


def linear_gaussian(h, beta, n):
    "Mean and variance of the two free numbers by the real sampler, data scaled by .1 around .5"
    D = Linear(torch.tensor(0.01 * C).float(), [[1.0, 0, 0]])
    target = torch.tensor([0.62, 0.5, 0.5]).view(1, 3, 1, 1)
    guide = Guide(D, target, n_noise=1, seed=gen(1), **RESET)
    way = dict(sigma_end=0.001, growing=False, sigma=0.1, guide=guide)
    for step in ascend(D, 0.5 + 0.1 * randn(n, 3, 1, 1), gen(2), h, beta, **way):
        pass
    free = (step.x[:, 1:, 0, 0] - 0.5) * 10
    return [*free.mean(0).tolist(), *free.var(0).tolist()]


LONG = pytest.param(0.02, 0.02, 8000, (0.008, 0.701, 0.495, 0.637), marks=pytest.mark.slow)
CASES = [
    (0.05, 0.5, 16_000, (0.086, 0.343, 0.41, 0.546)),
    (0.05, 0.1, 4000, (0.038, 0.629, 0.489, 0.643)),
    LONG,
]


@pytest.mark.parametrize("h,beta,n,want", CASES)
def test_linear_gaussian_means_and_variances(h, beta, n, want):
    """The exact answer is (0, .72), (.5, .64): large beta leaves the free part
    under-conditioned, and by how much is known"""
    got = linear_gaussian(h, beta, n)
    error = 4 * np.sqrt([want[2] / n, want[3] / n, 2 * want[2] ** 2 / n, 2 * want[3] ** 2 / n])
    assert (abs(np.subtract(got, want)) < error).all(), got


D, x = small(), rand(2, 1, 16, 16)

CALLS = {
    "target in [-1,1]": (lambda: Guide(D, 2 * x - 1), r"images: values.*\[0, 1\]"),
    "target of another size": (
        lambda: Guide(D, rand(1, 1, 8, 8)),
        r"target: images of \(1, 8, 8\)",
    ),
    "no target": (lambda: Guide(D, x[:0]), "target: .*at least one"),
    "clean conditioner": (lambda: Guide(D, x, sigma_c=0.0), "sigma: 0.*collapses"),
    "batch of another size": (
        lambda: Guide(D, x, 3)(rand(4, 1, 16, 16), torch.ones(4)),
        "x: 4 images.*need 6",
    ),
}


@pytest.mark.parametrize("case", CALLS)
def test_bad_input(case):
    refused(*CALLS[case])


def test_a_level_at_which_phi_has_collapsed_is_refused():
    class Faint(Linear):
        def averages(self, x, sigma=None, taps=("mid",)):
            return {"mid": x.flatten(1) * torch.as_tensor(sigma).view(-1, 1) ** 2}

    faint, image = Faint(np.eye(3) * 0.01, np.eye(3)), torch.full((1, 3, 1, 1), 0.5)
    Guide(faint, image, sigma_c=0.4)
    with pytest.raises(ValueError, match="sigma_c: .*collapsed"):
        Guide(faint, image, sigma_c=0.01)
