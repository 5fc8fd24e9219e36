"""What the tests of the DAED wing share: the Gaussian oracle, networks that do something,
constructed tables"""

import numpy as np
import pandas as pd
import torch
from torch import nn

from denoise_study.daed import DAED
from denoise_study.diffusion import DDGM, GaussianNet, reconstruction_sweep, Schedule, UNet

HO = Schedule.linear(1000)
WIDE = (-9.0, 9.0)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def gauss(sched=HO, s2=0.25, n=16, **kw):
    return DDGM(GaussianNet(sched, s2), sched, (1, n, n), **dict(dict(range=WIDE), **kw))


def gauss_daed(n=98, s2=0.25, **kw):
    return DAED.from_ddgm(gauss(s2=s2, **kw), n, GaussianNet(HO, s2))


def draw(n, side=16, s2=0.25, seed=5):
    return s2**0.5 * torch.randn(n, 1, side, side, generator=gen(seed))


def images(n, side=8, c=1, seed=0):
    return torch.rand(n, c, side, side, generator=gen(seed)) * 2 - 1


def close(a, b, **kw):
    np.testing.assert_allclose(
        np.asarray(a, dtype=float), np.asarray(b, dtype=float), **dict(dict(rtol=0, atol=0), **kw)
    )


def sweep(models, x, *args, **kw):
    return reconstruction_sweep(models, x, *args, **dict(dict(progress=False), **kw))


def trained(out=1, T=50, channels=1, side=8, **kw):
    "A network that does something, without training"
    torch.manual_seed(0)
    net = UNet(
        channels=channels, width=32, mult=(1, 2), n_blocks=1, attn=(2,), learn_sigma=out == 2
    )
    for p in net.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.05)
    return DDGM(net, Schedule.linear(T), (channels, side, side), **kw)


class Spy(nn.Module):
    "Counts calls and images, and records the labels"

    def __init__(self):
        super().__init__()
        self.calls, self.seen, self.labels = 0, 0, []

    def forward(self, x, label):
        self.calls, self.seen = self.calls + 1, self.seen + len(x)
        self.labels.append(int(label[0]))
        return torch.tanh(x) * 0.3


def constructed(
    onset=None, n=(80, 90), ts=(1, 2, 4, 8, 12, 16, 20), size=0.3, spread=0.2, ease=1.0, seed=0
):
    """A table of errors whose gap opens at `onset`, with a linear baseline that knows the `ease`
    of the second set"""
    rng, rows = np.random.default_rng(seed), []
    for name, k, at, factor in (("a", n[0], None, 1.0), ("b", n[1], onset, ease)):
        common = rng.normal(size=k)
        for t in ts:
            base = 0.02 * t * factor * (1 + spread * (0.7 * common + 0.5 * rng.normal(size=k)))
            grown = 1 + (size if at is not None and t >= at else 0.0)
            for how, e in (
                ("ancestral", base * grown * (1 + 0.05 * rng.normal(size=k))),
                ("linear", base),
                ("noisy", np.full(k, 0.03 * t)),
            ):
                rows.append(
                    pd.DataFrame(
                        dict(
                            model="m",
                            set=name,
                            how=how,
                            t=t,
                            step=t,
                            share=t / 100,
                            level=0.01 * t,
                            log_snr=5.0 - 0.1 * t,
                            seed=0,
                            image=np.arange(k),
                            mae=e,
                            mse=e**2,
                        )
                    )
                )
    return pd.concat(rows, ignore_index=True)


def space():
    s = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
    s.name = "4x4 means"
    return s
