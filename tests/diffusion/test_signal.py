"DAED figure 2: the log-SNR, its crossing of 0, and what the image has to do with it"

import math

import numpy as np
import pytest
import torch
from helpers import close, HO, images
from helpers_ddgm import SCHEDULES

from denoise_study.diffusion import log_snr_curves, Schedule, snr_crossing

POWERS = 1.0, 0.682, 0.256  # of white noise, FashionMNIST and CIFAR-10


@pytest.mark.parametrize(
    "name,steps,shares",
    [
        ("Ho 500", (130, 113, 74), (26.0, 22.6, 14.8)),
        ("Ho 1000", (260, 224, 147), (26.0, 22.4, 14.7)),
        ("repo 500", (112, 94, 56), (22.4, 18.8, 11.2)),
        ("repo 1000", (223, 188, 112), (22.3, 18.8, 11.2)),
        ("cosine 1000", (497, 436, 293), (49.7, 43.6, 29.3)),
        ("cosine 4000", (1985, 1741, 1171), (49.6, 43.5, 29.3)),
    ],
)
def test_where_noise_overtakes_the_signal(name, steps, shares):
    "Where the log-SNR falls below 0, for a power of 1, FashionMNIST's and CIFAR-10's"
    found = [snr_crossing(SCHEDULES[name], p) for p in POWERS]
    assert tuple(c.t for c in found) == steps
    close([100 * c.share for c in found], shares, atol=0.05)
    table = log_snr_curves({name: SCHEDULES[name]}, {p: torch.tensor([p]) for p in POWERS})
    by_set = table.groupby("set", sort=False)
    assert tuple(g.t[g.log_snr < 0].min() for _, g in by_set) == steps


def test_share_of_the_fall_in_the_first_tenth():
    "The linear schedules fall most in the first tenth; the cosine one loses half in the last"
    within = dict(Ho=(0.335, 0.375), repo=(0.275, 0.315), cosine=(0.205, 0.235))
    for name, s in SCHEDULES.items():
        c, (low, high) = snr_crossing(s), within[name.split()[0]]
        assert low < c.first_tenth < high and sum(c.fall) == pytest.approx(1)
        assert (0.525 < c.last_tenth < 0.555) == name.startswith("cosine")


def test_image_enters_as_a_constant():
    "Change from step to step bit-identical for all data; band constant in t"
    x = images(7, seed=1)
    x[0] = x[0] * 0.1
    table = log_snr_curves({"a": HO, "b": Schedule.cosine(100)}, {"x": x, "half": x / 2})
    changes = table[table.t > 1].groupby(["schedule", "t"]).change
    assert (changes.nunique() == 1).all() and table.change[table.t == 1].isna().all()
    assert (table.groupby(["schedule", "set"])["std"].nunique() == 1).all()


def test_log_of_each_images_mean_then_mean_and_deviation():
    x = images(7, seed=1)
    x[0] = x[0] * 0.1
    one = log_snr_curves(HO, x).set_index("t")
    for t in (1, 500, 1000):
        ratio = float(HO.alpha_bar[t] / (1 - HO.alpha_bar[t]))
        each = [math.log(ratio * float(i.double().pow(2).mean())) for i in x]
        close([one.log_snr[t], one["std"][t]], [np.mean(each), np.std(each)], rtol=1e-6)
    overall = math.log(float(HO.snr(float(x.square().mean()))[500]))
    assert abs(one.log_snr[500] - overall) > 0.1
    # pixels that are 0, of which the mean of logs would make -infinity, do no harm
    half_black = torch.tensor([0.0, 1.0]).repeat(2, 1, 2, 1)
    assert np.isfinite(log_snr_curves(HO, half_black).log_snr).all()


def test_never_crossing_is_an_answer():
    c = snr_crossing(Schedule.linear(1000, end=1e-4), 1.0)
    assert c.t is None and c.share is None


CALLS = {
    "no signal": (lambda: log_snr_curves(HO, torch.zeros(2, 1, 4, 4)), "images: .*0 everywhere"),
    "no powers": (lambda: log_snr_curves(HO, {"e": torch.zeros(0)}), "e: "),
    "power 0": (lambda: snr_crossing(HO, 0.0), "power: .*above 0, got 0"),
}


@pytest.mark.parametrize("case", CALLS)
def test_bad_input(case):
    call, message = CALLS[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()
