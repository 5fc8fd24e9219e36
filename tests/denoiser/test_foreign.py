"Networks of other people behind the contract"

import pytest
import torch
from torch import nn

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


class Tokens(nn.Module):
    "A network that speaks of tokens, of maps with channels last, and calls one activation twice"

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 1, 3, padding=1)
        self.act, self.last, self.block = nn.ReLU(), nn.Identity(), nn.Linear(6, 5)

    def forward(self, x):
        h = self.act(self.a(x))
        self.tokens = self.block(h.flatten(2).mT)
        self.channels_last = self.last(h.permute(0, 2, 3, 1))
        return self.act(self.b(h))


def foreign(net, **taps):
    return denoiser(net, (1, 8, 8), predicts="clean", taps=taps)


def test_layouts_are_named_or_refused():
    net, x = Tokens(), rand(2, 1, 8, 8)
    with torch.no_grad():
        net(x)
        tokens, channels_last = net.tokens, net.channels_last
        named = foreign(net, mid=("block", "NTC"), last=("last", "NHWC"))
        assert torch.allclose(named.phi(x), tokens.mean(1), atol=1e-6)
        found = named.averages(x, taps=("last", "last.in"))["last"]
        assert torch.allclose(found, channels_last.mean((1, 2)), atol=1e-6)
        assert torch.allclose(
            named.maps(x)["mid"].flatten(2), tokens.mT, atol=1e-6
        )  # on their grid
        for name, says in dict(block=r"gives \(2, 64, 5\)", last="looks like NHWC").items():
            with pytest.raises(ValueError, match=f"taps: 'mid' {says}|taps: 'mid' gives.*{says}"):
                foreign(net, mid=name).phi(x)
    with pytest.raises(ValueError, match="layout 'CHW'.*NCHW, NHWC, NTC"):
        foreign(net, mid=("block", "CHW"))
    assert hooks(net) == 0


def test_which_call_of_a_module_is_meant_has_to_be_said():
    net, x = Tokens(), rand(2, 1, 8, 8)
    with torch.no_grad():
        first = net.a(x).relu().mean((2, 3))
        assert torch.allclose(foreign(net, mid="act@1").phi(x), first, atol=1e-6)
        assert torch.allclose(foreign(net, mid="act@2").phi(x), net(x).mean((2, 3)), atol=1e-6)
        assert torch.allclose(foreign(net, mid="b.in").phi(x), first, atol=1e-6)  # a ReLU's output
        with pytest.raises(ValueError, match="'act' is called 2 times.*'act@1' to 'act@2'"):
            foreign(net, mid="act").phi(x)
        with pytest.raises(ValueError, match="not so often"):
            foreign(net, mid="act@3").phi(x)
    assert hooks(net) == 0
