"In and out again: nothing is left, copies are copies, faults are found"

from copy import deepcopy

import pytest
import torch
from torch import nn

from helpers import gen
from helpers_denoiserep import CODE, net, rel, same_form, wild, X
from denoise_study.denoiserep import backbone_digest, denoise_rep, InputMoments, optimal_denoiser


def test_fused_parameters_are_the_old_objects():
    "The reference makes new ones, and an optimiser goes on with those that nobody uses"
    m = net()
    ids = {n: id(p) for n, p in m.named_parameters()}
    assert {n: id(p) for n, p in wild(denoise_rep(m, example=X)).fuse().named_parameters()} == ids


def test_unload_gives_the_original_back():
    m = net()
    m.head.requires_grad_(False)
    plain, digest = deepcopy(m), backbone_digest(m)
    dr = wild(denoise_rep(m, example=X, bias="auto"))
    assert backbone_digest(m) == digest and not m.norm.weight.requires_grad
    assert dr.unload() is m and all(
        torch.equal(a, b) for a, b in zip(m.state_dict().values(), plain.state_dict().values())
    )
    assert [p.requires_grad for p in m.parameters()] == [
        p.requires_grad for p in plain.parameters()
    ]
    same_form(m, plain)
    denoise_rep(m, example=X)  # unloaded, it may have new ones


def test_a_copy_is_a_copy():
    "parametrize shares its classes between copies: removing from one must not break the other"
    dr = wild(denoise_rep(net(), example=X))
    copy = deepcopy(dr.model)
    with torch.no_grad():
        out = dr.model(X)
        fused = dr.fuse(inplace=False)
        assert fused is not dr.model and rel(fused(X), out) < 1e-5 and torch.equal(dr.model(X), out)
        assert rel(dr.fuse()(X), out) < 1e-5 and torch.equal(copy(X), out)


def test_fuse_refuses_what_differs():
    "The check compares with the features denoised: a wrong baked weight does not get through"
    dr, bake = wild(denoise_rep(net(), example=X)), None
    slot = dr.slots["patch"]
    bake, cls = type(slot).bake, type(slot)

    def wrong(self):
        bake(self)
        if self is slot:
            self.denoiser.baked["weight"] = self.denoiser.baked["weight"] * 1.001

    cls.bake = wrong
    try:
        with pytest.raises(ValueError, match="fuse: differs.*patch"):
            dr.fuse()
    finally:
        cls.bake = bake
    assert dr.state == "denoised" and dr.slots["patch"].denoiser.baked is None
    dr.fuse()


def test_half_precision_hardly_moves():
    "98.6% of bf16 weights do not move when a step of relative size 1e-4 is fused"
    x = torch.randn(40000, 64, generator=gen())
    torch.manual_seed(0)
    for dtype, share in ((torch.bfloat16, 0.98), (torch.float16, 0.85)):
        m = nn.Sequential(nn.Linear(64, 256)).to(dtype)
        before = m[0].weight.detach().clone()
        with pytest.warns(UserWarning, match="half precision"):
            dr = denoise_rep(m, sched=CODE, t=8, example=x[:8].to(dtype))
        W = optimal_denoiser(InputMoments().update(x[:, None]).second, CODE, 8)[0]
        with torch.no_grad():
            dr.slots["0"].denoiser.weight.copy_(W)
        with pytest.warns(UserWarning, match=r"\d% of the half-precision weights do not move"):
            dr.fuse()
        assert m[0].weight.dtype == dtype and float((m[0].weight == before).float().mean()) > share


def test_backbone_digest_sees_everything():
    m, seen = net(), set()
    for change in (
        lambda: None,
        lambda: m.norm.num_batches_tracked.add_(1),
        lambda: m.norm.running_var.mul_(1.0001),
        lambda: m.head.bias.data.add_(1e-7),
        lambda: m.half(),
    ):
        change()
        seen.add(backbone_digest(m))
    assert len(seen) == 5
