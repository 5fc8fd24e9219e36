"Models and runs that the tests of training share"

import torch
from torch import nn

from denoise_study.diffusion import DDGM, recipes, Schedule, UNet


class Linear(nn.Module):
    "The smallest objective: one scale per pixel, one noise level"

    shape, range = (1, 8, 8), (-1.0, 1.0)

    def __init__(self):
        super().__init__()
        self.config = {}
        self.w = nn.Parameter(torch.ones(1, 8, 8))

    def draw(self, shape, generator):
        return torch.ones(shape[0]), torch.randn(shape, generator=generator)

    def forward(self, x0, z):
        return (self.w * (x0 + 0.5 * z) - x0).pow(2).mean((1, 2, 3))


def small(T=20, **kw):
    net = UNet(channels=1, width=32, mult=(1,), n_blocks=1, attn=())
    return DDGM(net, Schedule.linear(T, end=0.015), shape=(1, 8, 8), **kw)


def shorter_chains(monkeypatch, T=40, **net):
    """From now on small diffusion models have so few steps, and other networks: for tests of what
    is done with models, whatever they are"""
    whole = recipes._small

    def small(info, width):
        p = whole(info, width)
        return p | dict(T=T, net=p["net"] | net)

    monkeypatch.setattr(recipes, "_small", small)
