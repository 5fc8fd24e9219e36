"The noise level under matching"

import math

import pytest

from denoise_study.representation import noise_level_check, plot_noise_level
from helpers import rand
from helpers_selfguided import small


def test_it_is_judged_where_matching_converged():
    D = small()
    t = noise_level_check(D, rand(6, 1, 16, 16), sigmas=(0.5, 0.2), steps=40, method="gd")
    assert t.sigma.tolist() == [0.5, 0.2] and (t.n <= t.N).all() and (t.N == 6).all()
    assert plot_noise_level(t, label="x").get_xscale() == "log"


def test_where_nothing_moved_there_is_no_number():
    t = noise_level_check(small(), rand(6, 1, 16, 16), sigmas=(0.5,), steps=1, lr=1e-6)
    assert t.n[0] == 0 and math.isnan(t.ratio[0])
    assert t.ratio_of_all[0] == pytest.approx(1, abs=1e-3)  # vacuous, and said so
