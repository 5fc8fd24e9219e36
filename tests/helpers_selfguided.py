"What the tests of guided sampling share: small denoisers, and worlds in which guidance is known"

import math

import numpy as np
import pytest
import torch
from torch import nn

from denoise_study.denoiser import BlindUNet, Denoiser, denoiser, GaussianDenoiser

C = np.array([[1, 0, 0.6], [0, 0.5, -0.3], [0.6, -0.3, 1]])  # covariance of three numbers
WHOLE = np.geomspace(1e-3, 1e3, 120)  # noise levels of a whole integral


def small(seed=0, shape=(1, 16, 16)):
    torch.manual_seed(seed)
    return denoiser(BlindUNet(channels=1, widths=(6, 10, 14, 22), depths=(2, 3, 2)), shape)


class Linear(GaussianDenoiser):
    "Exact denoiser of Gaussian data whose phi is A times the image: guidance is known"

    def __init__(self, cov, A, mean=0.5):
        cov = torch.as_tensor(cov)
        super().__init__(torch.full((len(cov), 1, 1), mean), cov)
        self.taps, self.A = ("mid",), torch.as_tensor(A)

    def averages(self, x, sigma=None, taps=("mid",)):
        return {"mid": x.flatten(1) @ self.A.T.to(x)}


class Smooth(Denoiser):
    "phi in double precision, for finite differences"

    def __init__(self):
        super().__init__(nn.Conv2d(1, 5, 3, padding=1), (1, 8, 8), taps=("mid",))
        self.double()

    def averages(self, x, sigma=None, taps=("mid",)):
        return {"mid": torch.tanh(self.net(x)).square().mean((2, 3))}


class Foreign(nn.Module):
    "A bias-free residual CNN"

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.body = nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False)
        self.act, self.tail = nn.ReLU(), nn.ConvTranspose2d(12, 1, 2, 2, bias=False)

    def forward(self, x):
        return self.tail(self.act(self.body(self.head(x).relu()))) * 0.1 + 0.5 * x


# a linear phi is reset in one step, whatever two noise draws leave
RESET = dict(method="gd", lr=math.inf, steps=1, tol=1e-2)


def refused(call, message):
    "The call raises an error whose text has `message` in it"
    flags = "(?s)"
    if message.startswith("(?i)"):
        flags, message = "(?si)", message[4:]
    with pytest.raises((ValueError, TypeError), match=f"{flags}{message}"):
        call()
