"What the tests of denoising layers share: a network, wild denoisers, the check of a fusion"

from copy import deepcopy

import torch
from torch import nn
from torch.nn.utils import parametrize

from helpers import gen

from denoise_study.denoiserep import denoise_rep, DenoisingLayer
from denoise_study.diffusion import Schedule


DDPM, CODE = (
    Schedule.linear(1000),
    Schedule.linear(1000, 1e-4, 2e-3),
)  # Ho et al.'s, and that of the authors' code


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=gen(seed), dtype=torch.float64)


def rel(a, b):
    return float((a - b).abs().max() / b.abs().max())


def C1(sched, t):
    return float((1 - sched.alpha[t]) / (sched.alpha[t].sqrt() * (1 - sched.alpha_bar[t]).sqrt()))


def wild(dr, size=0.5, seed=0):
    "Lopsided denoisers that change a weight by `size` of itself; symmetric ones hide a transpose"
    g = gen(seed)
    with torch.no_grad():
        for s in dr.slots.values():
            d = s.denoiser
            d.weight.copy_(
                torch.randn(d.weight.shape, generator=g, dtype=torch.float64)
                * size
                / d.C1
                / d.weight.shape[-1] ** 0.5
            )
            if d.bias is not None:
                d.bias.copy_(
                    torch.randn(d.bias.shape, generator=g, dtype=torch.float64) * size / d.C1
                )
    return dr


def comparison_rows(o):
    "Every tensor of an output, end to end"
    if isinstance(o, torch.Tensor):
        return o.double().flatten()
    return torch.cat([comparison_rows(v) for v in (o.values() if isinstance(o, dict) else o)])


@torch.no_grad()
def check_exact(model, x, tol, far=0.05, size=0.5, **kwargs):
    "Fused against two branches, the original far off; then all that could tell fused from original"
    model = model.eval()
    plain, args = deepcopy(model), x if isinstance(x, tuple) else (x,)
    base = comparison_rows(
        deepcopy(model).requires_grad_(False)(*args)
    )  # frozen: with requires_grad, PyTorch multiplies in another order, for one ulp
    dr = wild(denoise_rep(model, example=x, **kwargs), size)
    with dr.two_branch():
        two = comparison_rows(model(*args))
    with dr.disabled():
        assert torch.equal(comparison_rows(model(*args)), base)
    assert rel(comparison_rows(model(*args)), two) < tol  # the parametrized weight
    fused = dr.fuse()
    assert fused is model and rel(comparison_rows(fused(*args)), two) < tol
    assert base.shape != two.shape or rel(base, two) > far
    same_form(fused, plain)
    return dr


def same_form(fused, plain):
    "Classes, keys in order, shapes, types, flags; no hook or parametrization left; loads afresh"
    a, b = fused.state_dict(), plain.state_dict()
    assert list(a) == list(b) and all(
        a[k].shape == b[k].shape and a[k].dtype == b[k].dtype for k in a
    )
    assert [(n, type(m)) for n, m in fused.named_modules()] == [
        (n, type(m)) for n, m in plain.named_modules()
    ]
    assert [(n, p.requires_grad) for n, p in fused.named_parameters()] == [
        (n, p.requires_grad) for n, p in plain.named_parameters()
    ]
    assert not any(
        m._forward_pre_hooks or m._forward_hooks or parametrize.is_parametrized(m)
        for m in fused.modules()
    )
    assert not any(isinstance(m, DenoisingLayer) for m in fused.modules())
    plain.load_state_dict(a, strict=True)


class Net(nn.Module):
    "One of everything; the head is made first and acts last"

    def __init__(self, width=8, dropout=0.0):
        super().__init__()
        self.head = nn.Linear(width, 10)
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.patch, self.depth = (
            nn.Conv2d(4, width, 2, 2),
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
        )
        block = nn.TransformerEncoderLayer(
            width, 2, 2 * width, dropout=dropout, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)

    def forward(self, x):
        return self.head(
            self.blocks(self.depth(self.patch(self.norm(self.stem(x)).relu())).flatten(2).mT).mean(
                1
            )
        )


def net(seed=0, **kwargs):
    torch.manual_seed(seed)
    return Net(**kwargs).eval()


X = torch.randn(6, 1, 8, 8, generator=gen(7))
