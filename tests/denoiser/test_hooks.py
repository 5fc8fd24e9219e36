"Reading modules leaves no hook behind"

import pytest

from denoise_study.denoiser import denoiser
from helpers import rand
from helpers_denoiser import hooks, Tiny


def test_no_hook_stays_after_an_error():
    net = Tiny(fails=True)
    D = denoiser(net, predicts="residual", taps=("a", "b"))
    with pytest.raises(RuntimeError, match="out of memory"):
        D.averages(rand(1, 1, 8, 8), taps=("b",))
    assert hooks(net) == 0
    assert D.averages(rand(1, 1, 8, 8), taps=("a",))["a"].shape == (1, 8)  # read before the failure
    D = denoiser(Tiny(), predicts="residual", taps=("spare",))
    with pytest.raises(ValueError, match="did not call.*spare"):
        D.averages(rand(1, 1, 8, 8), taps=("spare",))
    assert hooks(D.net) == 0
