"Training times: weights that leave the objective alone, and a memory that is a ring"

import pytest
import torch
from helpers import close, gen

from denoise_study.diffusion import LossSecondMoment, TIME_SAMPLERS


@pytest.mark.parametrize("make", TIME_SAMPLERS.values(), ids=TIME_SAMPLERS)
def test_time_samplers_are_unbiased(make):
    "Expected weight 1, and the weighted mean of any loss is its plain mean"
    s, g = make(20), gen()
    truth = torch.linspace(3, 0.1, 20)
    for _ in range(60):
        t, w = s.sample(64, g)
        s.update(t, truth[t - 1])
    t, w = s.sample(100_000, g)
    assert t.min() == 1 and t.max() == 20
    close(w.mean(), 1.0, atol=0.02)
    close((w * truth[t - 1]).mean(), truth.mean(), atol=0.02)


def test_loss_second_moment_is_uniform_until_it_knows():
    s = LossSecondMoment(4, keep=2)
    s.update(torch.tensor([1, 1, 2, 2, 3, 3, 4]), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]))
    close(s.p, [0.25] * 4)
    # a ring of two: 1 keeps 11 and 10
    s.update(torch.tensor([4, 1, 1, 1]), torch.tensor([8.0, 9.0, 10.0, 11.0]))
    assert sorted(s.history[0].tolist()) == [10.0, 11.0] and sorted(s.history[3].tolist()) == [
        7.0,
        8.0,
    ]
    rms = torch.tensor([(221 / 2) ** 0.5, 12.5**0.5, 30.5**0.5, 56.5**0.5]).double()
    close(s.p, 0.999 * rms / rms.sum() + 0.001 / 4, rtol=1e-6)
