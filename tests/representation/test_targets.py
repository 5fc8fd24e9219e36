"Targets: what is averaged, and that nothing else is"

import pytest
import torch

from denoise_study.representation import centroid, masked, mix, Target
from helpers import gen, rand
from helpers_selfguided import refused, small


def test_averages_over_noise_and_images():
    D, images = small(), rand(3, 1, 16, 16)
    t = Target(images[:, None])
    # images are not mixed up
    assert torch.allclose(t.phi(D, 0.5, 3)[:1], t[[0]].phi(D, 0.5, 3), atol=1e-7)
    c, g = centroid(images), [gen(5)]
    z = torch.randn(1, 3, 2, 1, 16, 16, generator=gen(5))[0]
    with torch.no_grad():
        by_hand = D.phi((images[:, None] + 0.5 * z).flatten(0, 1)).mean(0)
    assert torch.allclose(c.phi(D, 0.5, 6, g)[0], by_hand, atol=1e-7)
    assert len(c) == 1


def test_shares_of_a_mix():
    D, images = small(), rand(3, 1, 16, 16)
    ends = [images[i : i + 1].expand(3, -1, -1, -1) for i in (0, 1)]
    m = mix(*ends, torch.tensor([0.0, 0.5, 1.0]))
    p = m.phi(D, 0.5, 4, gen(0).manual_seed(1))
    assert m.weights.tolist() == [[1, 0], [0.5, 0.5], [0, 1]] and p.shape == (3, 22)
    # three draws of each of two images, of which one counts
    z = torch.randn(1, 2, 3, 1, 16, 16, generator=gen(6))[0]
    with torch.no_grad():
        own = D.phi(images[1] + 0.5 * z[1]).mean(0)
    found = mix(images[:1], images[1:2], 1.0).phi(D, 0.5, 6, [gen(6)])[0]
    assert torch.allclose(found, own, atol=1e-8, rtol=1e-4)
    assert len(m) == 3 and masked(m, [1]).mask == [1] and masked(m, [1])[[0, 2]].mask == [1]


x = rand(2, 1, 16, 16)

CALLS = {
    "empty set": (lambda: centroid(x[:0]), "images: .*got shape"),
    "unlike partners": (lambda: mix(x, x[:1]), "a, b: shapes"),
    "no draws": (lambda: Target(x[:, None]).phi(small(), 0.5, 0), "draws: at least 1"),
}


@pytest.mark.parametrize("case", CALLS)
def test_bad_input(case):
    refused(*CALLS[case])


def test_spread_is_the_variance_of_one_draw():
    D, images = small(), rand(2, 1, 16, 16)
    t = Target(images[:, None])
    phi, spread = t.phi_and_spread(D, 0.5, 400)
    assert torch.equal(phi, t.phi(D, 0.5, 400))
    draws = t.readings(D, 0.5, 400, 7)[:, 0]
    gaps = (draws[:, ::2] - draws[:, 1::2]).square().sum(2).mean(1)
    assert torch.allclose(2 * spread.sum(1), gaps, rtol=0.2)


def test_spread_of_a_set_is_that_of_an_image_of_it():
    "Not the far smaller one of the average over the set, nor the one between its images"
    D, images = small(), rand(10, 1, 16, 16)
    images[:5] *= 0.2
    of_set = centroid(images).phi_and_spread(D, 0.5, 10)[1]
    of_each = Target(images[:, None]).phi_and_spread(D, 0.5, 50)[1].mean(0)
    assert of_set.sum() == pytest.approx(of_each.sum().item(), rel=0.4)
    assert centroid(images).phi_and_spread(D, 0.5, 1)[1] is None
