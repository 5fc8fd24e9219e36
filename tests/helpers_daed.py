"""What the tests of the DAED wing share: the Gaussian oracle, networks that do something,
constructed tables"""

import torch
from torch import nn

from helpers import gauss, HO

from denoise_study.daed import DAED, LEASTS
from denoise_study.diffusion import GaussianNet


def gauss_daed(n=98, s2=0.25, **kw):
    return DAED.from_ddgm(gauss(s2=s2, **kw), n, GaussianNet(HO, s2))


class Spy(nn.Module):
    "Counts calls and images, and records the labels"

    def __init__(self):
        super().__init__()
        self.calls, self.seen, self.labels = 0, 0, []

    def forward(self, x, label):
        self.calls, self.seen = self.calls + 1, self.seen + len(x)
        self.labels.append(int(label[0]))
        return torch.tanh(x) * 0.3


def space():
    s = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
    s.name = "4x4 means"
    return s


def places(shares, width=0.01, **more):
    "Records of one switch, a record for each size of the excess"
    where = dict(a="x", b="y", how="ancestral", relative_to=None, n_a=90, n_b=90)
    where |= dict(significant_share=0.02, from_start=False)
    found = []
    for least, share in zip(LEASTS, shares):
        ends = dict(share=share, share_low=None, share_high=None)
        if share is not None:
            ends |= dict(share_low=share - width, share_high=share + width)
        found.append(where | ends | dict(least=least) | more)
    return found
