"What the tests of denoisers share"

import torch
from torch import nn

from helpers import gen

from denoise_study.denoiser import BlindUNet, denoiser
from denoise_study.diffusion import UNet


def gens(seeds):
    return [gen(100 + i) for i in seeds]


SMALL = dict(channels=1, widths=(6, 10, 14, 22), depths=(2, 3, 2))


def blind(seed=0):
    torch.manual_seed(seed)
    return denoiser(BlindUNet(**SMALL), shape=(1, 8, 8))


def unet(**kw):
    return UNet(**dict(channels=1, width=32, mult=(1, 2), n_blocks=2, attn=(2,)) | kw)


def hooks(net):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


class Tiny(nn.Module):
    "A bias-free denoiser that returns the residual"

    def __init__(self, fails=False):
        super().__init__()
        self.a, self.b = (
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.Conv2d(8, 1, 3, padding=1, bias=False),
        )
        self.spare, self.fails = nn.Conv2d(1, 1, 1), fails

    def forward(self, x, sigma=None):
        h = self.a(x).relu()
        if self.fails:
            raise RuntimeError("out of memory")
        return self.b(h) if sigma is None else self.b(h) * sigma.view(-1, 1, 1, 1)


class Exact(nn.Module):
    "The optimal network for N(0, s2) at whole steps, in any way of speaking"

    def __init__(self, sched, s2, kind):
        super().__init__()
        self.sched, self.s2, self.kind = sched, s2, kind

    def forward(self, xt, label):
        t = label.round().long() + 1
        ab = self.sched.alpha_bar[t].float().view(-1, 1, 1, 1)
        return self.sched.from_x0(
            ab.sqrt() * self.s2 / (ab * self.s2 + 1 - ab) * xt, xt, t, self.kind
        )
