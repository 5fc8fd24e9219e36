"Guided samples: the same in any company, of any network"

import pytest
import torch

from denoise_study.denoiser import BlindUNet, denoiser, noise_levels, sample
from denoise_study.representation import centroid, conditional_distance, noise_level_check
from denoise_study.representation import samples_around, self_guided, show_around, unguided
from helpers import rand
from helpers_selfguided import Foreign, refused, small


@pytest.mark.parametrize("sampler", ["ascend", "ancestral", "renoise"])
def test_a_sample_alone_and_in_a_batch(sampler):
    D, images = small(), rand(3, 1, 16, 16)
    kw = dict(sampler=sampler, seed=4, n_noise=2, matching=dict(steps=3))
    kw |= dict(progress=False, clip=False)
    kw |= dict(max_steps=4) if sampler == "ascend" else dict(sigmas=[1.0, 0.5, 0.2])
    with pytest.warns(UserWarning) if sampler == "ascend" else torch.no_grad():
        both, report = self_guided(D, images, 2, **kw)
        alone, _ = self_guided(D, images[:1], 1, **kw)
        again, _ = self_guided(D, images, 2, **kw)
    assert both.shape == (6, 1, 16, 16) and torch.equal(both, again)
    assert (alone[0] - both[0]).abs().max() < 1e-3 and (both[0] - both[1]).abs().max() > 2e-3
    assert len(report) == 6 * report.step.nunique()
    assert {"sigma", "loss_ratio", "converged", "move_over_sigma"} <= set(report)


def test_a_bar_changes_no_image():
    D, kw = small(), dict(sigmas=[1.0, 0.3], n_noise=2, matching=dict(steps=2))
    plain = self_guided(D, rand(1, 1, 16, 16), 2, progress=False, **kw)[0]
    assert torch.equal(self_guided(D, rand(1, 1, 16, 16), 2, **kw)[0], plain)


def test_color_from_end_to_end():
    "Networks return channels-last images, which cannot be viewed as rows"
    torch.manual_seed(0)
    net = BlindUNet(channels=3, widths=(4, 6, 8, 10), depths=(1, 1, 2))
    D, images = denoiser(net, (3, 16, 16)), rand(2, 3, 16, 16)
    way, quick = dict(sigmas=[1.0, 0.3], progress=False), dict(steps=2)
    made, _ = self_guided(D, images, 2, n_noise=2, matching=quick, **way)
    plain = sample(D, 5, "descend", **way)
    t = samples_around(D, images, made, plain, lambda x: x.mean((1, 2, 3)) > 0.5)
    assert t.value.notna().all() and len(show_around(images, made, plain)) == 3
    assert len(noise_level_check(D, images, sigmas=(0.5,), **quick)) == 1
    found = conditional_distance(D, images, images.flip(0), [0.3, 1.0], 2, progress=False, **quick)
    assert len(found) == 2


def test_a_foreign_residual_cnn_guides_itself():
    D = denoiser(Foreign(), (1, 16, 16), predicts="residual", multiple=2, taps=dict(mid="act"))
    images, way = rand(2, 1, 16, 16), dict(sigmas=noise_levels(1.0, 0.1, 6), progress=False)
    made, report = self_guided(D, images, 3, matching=dict(steps=20, tol=0.0), **way)
    plain = sample(D, 6, "descend", **way)
    assert made.shape == plain.shape == (6, 1, 16, 16) and made.isfinite().all()
    assert (report.loss_ratio < 1).mean() > 0.9
    t = samples_around(D, images, made, plain).set_index(["measure", "arm"]).value
    assert t["phi distance", "guided"] < t["phi distance", "unconditional"]


@pytest.mark.parametrize("sampler", ["ancestral", "renoise", "ascend"])
def test_the_control_is_the_same_sampler_from_the_same_noise(sampler):
    "Guidance that is never on leaves what `unguided` makes"
    D, images = small(), rand(2, 1, 16, 16)
    way = dict(seed=3, progress=False)
    if sampler == "ascend":
        way |= dict(sigma_end=0.3, max_steps=30)
    else:
        way |= dict(sigmas=[1.0, 0.3])
    off, report = self_guided(D, images, 2, sampler, between=(9.0, 10.0), **way)
    control = unguided(D, 4, sampler, **way)
    assert report.empty and torch.equal(off, control)
    assert not torch.equal(control, unguided(D, 4, sampler, **(way | dict(seed=4))))


def test_figure_of_images_and_of_a_set():
    x = rand(2, 1, 16, 16)
    assert len(show_around(x, rand(6, 1, 16, 16), rand(6, 1, 16, 16))) == 3
    assert len(show_around(centroid(rand(9, 1, 16, 16)), rand(6, 1, 16, 16))) == 2


D, x = small(), rand(2, 1, 16, 16)

CALLS = {
    "an array": (lambda: self_guided(D, x.numpy()), "target: got ndarray"),
    "unknown sampler": (lambda: self_guided(D, x, sampler="ddim"), "sampler: one of"),
    "no samples": (lambda: self_guided(D, x, 0), "n: at least 1"),
}


@pytest.mark.parametrize("case", CALLS)
def test_bad_input(case):
    refused(*CALLS[case])
