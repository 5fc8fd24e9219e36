"What the tests of diffusion models share: seeded draws, networks whose answers are known"

import torch
from torch import nn

from denoise_study.diffusion import DDGM, GaussianNet, reconstruction_sweep, Schedule, UNet

HO = Schedule.linear(1000)  # that of Ho et al. (2020)
WIDE = (-9.0, 9.0)  # a range that Gaussian images keep to
SCHEDULES = {
    "Ho 500": Schedule.linear(500),
    "Ho 1000": HO,
    "repo 500": Schedule.linear(500, start=1e-3),
    "repo 1000": Schedule.linear(1000, start=1e-3),
    "cosine 1000": Schedule.cosine(1000),
    "cosine 4000": Schedule.cosine(4000),
}


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n, side=8, c=1, seed=0):
    return torch.rand(n, c, side, side, generator=gen(seed)) * 2 - 1


def randn(*shape, seed=0):
    return torch.randn(shape, generator=gen(seed))


def normal(n, side=16, s2=0.25, seed=5):
    return s2**0.5 * randn(n, 1, side, side, seed=seed)


def close(a, b, rtol=0.0, atol=0.0):
    "Whether two tensors, arrays or numbers are equal in double precision, but for what is allowed"
    a, b = (torch.as_tensor(v, dtype=torch.float64) for v in (a, b))
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


class Spy(nn.Module):
    "A network that records the labels it is told, and returns a fixed function of the image"

    def __init__(self, out=1):
        super().__init__()
        self.seen, self.out, self.scale = [], out, nn.Parameter(torch.tensor(0.3))

    def forward(self, x, label):
        self.seen.append(label.flatten().tolist())
        return (torch.tanh(x) * self.scale).repeat(1, self.out, 1, 1)

    @property
    def calls(self):
        return len(self.seen)

    @property
    def images(self):
        return sum(map(len, self.seen))

    @property
    def labels(self):
        return [int(labels[0]) for labels in self.seen]


def gauss(sched=HO, s2=0.25, n=16, **kw):
    "The perfect model of Gaussian data"
    return DDGM(GaussianNet(sched, s2), sched, (1, n, n), **dict(dict(range=WIDE), **kw))


def trained(out=1, T=50, channels=1, side=8, **kw):
    "A diffusion model that does something, without training"
    torch.manual_seed(0)
    net = UNet(
        channels=channels, width=32, mult=(1, 2), n_blocks=1, attn=(2,), learn_sigma=out == 2
    )
    for p in net.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.05)
    return DDGM(net, Schedule.linear(T), (channels, side, side), **kw)


def sweep(models, x, *args, **kw):
    return reconstruction_sweep(models, x, *args, **dict(dict(progress=False), **kw))
