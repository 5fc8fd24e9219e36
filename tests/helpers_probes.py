"A denoiser whose representation depends on everything, pictures, and readings of them"

import os
import signal

import torch
from torch import nn

from denoise_study.core import ArraySource, ImageLoader
from denoise_study.denoiser import Denoiser
from denoise_study.representation import channel_averages


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
