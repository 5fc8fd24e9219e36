"Small tools: refusing in words, models given back as they were, noise that belongs to an image"

import hashlib

import pytest
import torch
from torch import nn

from denoise_study.core import device_of, evaluating, image_generators, image_noise, noise_like
from denoise_study.core import one_of, short_digest, step_generator, untrained, unwrap, with_bar


def test_a_refusal_names_argument_accepted_and_given():
    one_of("loss", "simple", ("simple", "vlb"))
    with pytest.raises(ValueError, match=r"loss: one of \('simple', 'vlb'\) is .*, got 'mse'"):
        one_of("loss", "mse", {"simple": 1, "vlb": 2})


def test_evaluating_restores_the_mode_of_every_module():
    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2))).train()
    net[1][1].eval()  # frozen on purpose
    modes = [m.training for m in net.modules()]
    with pytest.raises(KeyError), evaluating(net) as quiet:
        assert not any(m.training for m in quiet.modules())
        assert not quiet(torch.ones(3, 2)).requires_grad
        raise KeyError
    assert [m.training for m in net.modules()] == modes and torch.is_grad_enabled()


def test_noise_of_an_image_does_not_depend_on_the_batch():
    x = torch.zeros(6, 1, 4, 4, dtype=torch.float64)

    def draw(images):
        return noise_like(x[images], [step_generator(0, i) for i in images])

    whole = draw(range(6))
    for cut in range(1, 6):
        assert torch.equal(torch.cat([draw(range(cut)), draw(range(cut, 6))]), whole)
    assert torch.equal(draw([4]), whole[4:5]) and whole.dtype == torch.float64
    one = noise_like(x, step_generator(0, 0))
    assert one.shape == x.shape and not torch.equal(one[0], one[1])
    with pytest.raises(ValueError, match="generator: one, or one for each of 6 images.*got 5"):
        draw_with(x, 5)


def draw_with(x, n):
    return noise_like(x, image_generators(0, range(n)))


def test_an_image_is_known_by_its_place():
    "The stream of an image goes on from step to step; `image_noise` is its first draw"
    x = torch.zeros(6, 1, 4, 4)
    whole = image_noise(x, 3)
    assert torch.equal(image_noise(x[2:5], 3, first=2), whole[2:5])
    assert not torch.equal(image_noise(x, 4), whole)
    assert not torch.equal(image_noise(x, 3, stream="other"), whole)
    streams = image_generators(3, range(6))
    first, second = noise_like(x, streams), noise_like(x, streams)
    assert torch.equal(first, whole) and not torch.equal(second, first)
    later = image_generators(3, [5])
    assert torch.equal(torch.cat([noise_like(x[5:], later) for _ in range(2)])[1], second[5])


class Around(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net


def test_untrained_is_a_fresh_copy():
    D = Around(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2)))
    for p in D.parameters():
        nn.init.constant_(p, 7.0)
    D.net[1].running_mean += 5
    before = torch.get_rng_state()
    a, b, other = untrained(D), untrained(D), untrained(D, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values()))
    assert not torch.equal(a.net[0].weight, other.net[0].weight)
    assert not any(p.eq(7).any() for p in a.parameters()) and a.net[1].running_mean.eq(0).all()
    assert all(p.eq(7).all() for p in D.parameters()) and D.net[1].running_mean.eq(5).all()


def test_parameters_that_start_at_zero_get_a_spread():
    D = Around(nn.BatchNorm2d(400))
    assert untrained(D).net.bias.eq(0).all()
    assert 0.4 < untrained(D, zeros=0.5).net.bias.std() < 0.6


def test_a_layer_that_cannot_start_anew_is_named():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.s = nn.Parameter(torch.ones(1))

    with pytest.raises(ValueError, match="Scale has parameters, but no `reset_parameters`"):
        untrained(Around(nn.Sequential(Scale())))
    with pytest.raises(ValueError, match="make: builds another network"):
        untrained(Around(nn.Linear(2, 2)), make=lambda: nn.Linear(3, 2))


def test_models_without_wrapper_or_parameters():
    net = nn.Linear(1, 1)
    assert unwrap(net) is net and unwrap(nn.DataParallel(net)) is net
    assert device_of(nn.Flatten()) == torch.device("cpu")
    assert device_of(nn.BatchNorm1d(1, affine=False, device="meta")).type == "meta"


def test_a_bar_gives_the_items_on():
    for progress in (True, False):
        assert list(with_bar(iter("abc"), progress, total=3)) == [*"abc"]


def test_a_digest_is_the_beginning_of_sha256():
    assert short_digest(b"x") == hashlib.sha256(b"x").hexdigest()[:8]
