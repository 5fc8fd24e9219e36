"A denoiser whose representation depends on everything, pictures, and readings of them"

import os
import signal

import torch
from torch import nn

from denoise_study.core import ArraySource, ImageLoader
from denoise_study.denoiser import BlindUNet, Denoiser, denoiser
from denoise_study.diffusion import ScaleNorm
from denoise_study.representation import channel_averages

WIDTHS = 6, 10, 14, 22  # all different, so that an index off by one has the wrong length


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=gen(seed))


def pictures(n=12, side=16, seed=0):
    "Smooth pictures in [0,1], each with a pattern of its own"
    x = nn.functional.interpolate(
        torch.rand(n, 1, 4, 4, generator=gen(seed)), size=side, mode="bicubic"
    )
    return x.clamp(0, 1)


def make(seed=0, widths=WIDTHS):
    "A denoiser with large random gains and some bias: phi depends on image, noise and noise level"
    torch.manual_seed(seed)
    net = BlindUNet(1, widths, (2, 2, 2))
    for m in net.modules():
        if isinstance(m, ScaleNorm):
            nn.init.normal_(m.gain, std=0.5)
        elif getattr(m, "bias", None) is not None:
            nn.init.normal_(m.bias, std=0.05)
    return denoiser(net, (1, 16, 16))


class Reader(Denoiser):
    "A denoiser whose single tap is a function of the noisy image, counting its calls"

    def __init__(self, maps, fail_at=None, kill=False):
        super().__init__(nn.Conv2d(1, 1, 1), taps=("mid",))
        self.fn, self.calls, self.fail_at, self.kill = maps, 0, fail_at, kill

    def _denoise(self, x, sigma):
        return x

    def _places(self, x, sigma, taps, reduce):
        self.calls += 1
        if self.calls == self.fail_at:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt
        return {"mid": reduce(self.fn(x))}


def spread(x):
    return torch.cat([x, 1 - x, x.square()], 1)


def read(*args, **kwargs):
    "Channel averages over four draws"
    return channel_averages(*args, **{"draws": 4, "progress": False, **kwargs})


def loader(x, y=None, **kw):
    return ImageLoader(
        ArraySource((x * 255).round().byte(), y), bs=5, device=torch.device("cpu"), **kw
    )
