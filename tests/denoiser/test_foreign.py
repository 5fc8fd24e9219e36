"Networks of other people behind the contract"

import pytest
import torch

from denoise_study.denoiser import denoiser
from helpers import rand
from helpers_denoiser import hooks, Tiny


@pytest.mark.parametrize("predicts", ["clean", "residual"])
@pytest.mark.parametrize("range", [(0.0, 1.0), (-1.0, 1.0)])
@pytest.mark.parametrize("told", [False, True])
def test_foreign_network(predicts, range, told):
    torch.manual_seed(0)
    net, x, (lo, hi) = Tiny(), rand(2, 1, 8, 8), range
    D = denoiser(
        net,
        shape=(1, 8, 8),
        predicts=predicts,
        range=range,
        blind=not told,
        taps=dict(mid="a", last="b"),
    )
    y, sigma = lo + (hi - lo) * x, torch.tensor([0.1, 0.2])
    with torch.no_grad():
        out = net(y, (hi - lo) * sigma) if told else net(y)
        want = ((out if predicts == "clean" else y - out) - lo) / (hi - lo)
        assert torch.allclose(D(x, sigma), want, atol=1e-6)
        assert torch.allclose(D.phi(x, sigma), net.a(y).mean((2, 3)), atol=1e-6)
        assert D.taps == ("mid.in", "mid", "last.in", "last") and torch.equal(
            D.maps(x, sigma, ("mid.in",))["mid.in"], y
        )
    assert hooks(net) == 0
