"The noise level under matching"

import math

import pytest
import torch

from denoise_study.representation import noise_level_check, plot_noise_level, random_move
from helpers import gen, rand
from helpers_selfguided import small


def test_it_is_judged_where_matching_converged():
    D = small()
    t = noise_level_check(D, rand(6, 1, 16, 16), sigmas=(0.5, 0.2), steps=40, method="gd")
    assert t.sigma.tolist() == [0.5, 0.2] and (t.n <= t.N).all() and (t.N == 6).all()
    assert plot_noise_level(t, label="x").get_xscale() == "log"


def test_where_nothing_moved_there_is_no_number():
    t = noise_level_check(small(), rand(6, 1, 16, 16), sigmas=(0.5,), steps=1, lr=1e-6, tol=1e-2)
    assert t.n[0] == 0 and math.isnan(t.ratio[0])
    assert t.ratio_of_all[0] == pytest.approx(1, abs=1e-3)  # vacuous, and said so


def test_a_random_move_is_as_long_as_it_is_told():
    x, move = rand(3, 1, 16, 16), torch.tensor([0.0, 0.1, 2.0])
    gone = random_move(x, move, gen(0)) - x
    assert torch.allclose(gone.square().mean((1, 2, 3)).sqrt(), move, atol=1e-5)


def test_the_random_move_stands_beside_the_images_that_arrived():
    D = small()
    t = noise_level_check(D, rand(6, 1, 16, 16), sigmas=(0.5,), steps=40, method="gd")
    assert t.n[0] > 1 and t.random_low[0] <= t.random[0] <= t.random_high[0]
    lengthened = math.sqrt(1 + t.move[0] ** 2)
    assert t.random[0] == pytest.approx(lengthened, rel=0.1)
