"DenoiseRep: fusion is exact for every layer type, and each trap of the method that can be written down as a number"
import os
import subprocess
import sys
from collections import Counter
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import Adam
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from denoise_study.core import AdamW, image_dls, save_checkpoint
from denoise_study.diffusion import DDGM, Schedule, UNet
from denoise_study.denoiserep import backbone_digest, compose, denoise_rep, denoiserep_learner
from denoise_study.denoiserep import DenoiseRepCB, DenoiseRepMinus, DenoisingLayer, fuse_conv
from denoise_study.denoiserep import fuse_linear, InputMoments, merge_loaders, optimal_denoiser
from denoise_study.denoiserep import step_affine

DDPM, CODE = Schedule.linear(1000), Schedule.linear(1000, 1e-4, 2e-3)     # Ho et al.'s, and that of the authors' code


def gen(seed=0): return torch.Generator().manual_seed(seed)
def randn(*shape, seed=0): return torch.randn(*shape, generator=gen(seed), dtype=torch.float64)
def rel(a, b): return float((a - b).abs().max() / b.abs().max())
def C1(sched, t): return float((1 - sched.alpha[t]) / (sched.alpha[t].sqrt() * (1 - sched.alpha_bar[t]).sqrt()))


def wild(dr, size=.5, seed=0):
    "Lopsided denoisers that change every weight by about `size` of itself: an optimal one is symmetric and hides a transpose, and the paper's C1 a sign"
    g = gen(seed)
    with torch.no_grad():
        for s in dr.slots.values():
            d = s.denoiser
            d.weight.copy_(torch.randn(d.weight.shape, generator=g, dtype=torch.float64) * size / d.C1 / d.weight.shape[-1]**.5)
            if d.bias is not None: d.bias.copy_(torch.randn(d.bias.shape, generator=g, dtype=torch.float64) * size / d.C1)
    return dr


def comparison_rows(o):
    "Every tensor of an output, end to end"
    if isinstance(o, torch.Tensor): return o.double().flatten()
    return torch.cat([comparison_rows(v) for v in (o.values() if isinstance(o, dict) else o)])


@torch.no_grad()
def check_exact(model, x, tol, far=.05, size=.5, **kwargs):
    "Fused against two branches, with the original network far off; then everything by which a fused model could be told from an original one"
    model = model.eval()
    plain, args = deepcopy(model), x if isinstance(x, tuple) else (x,)
    base = comparison_rows(deepcopy(model).requires_grad_(False)(*args))     # frozen: with requires_grad, PyTorch multiplies in another order, for one ulp
    dr = wild(denoise_rep(model, example=x, **kwargs), size)
    with dr.two_branch(): two = comparison_rows(model(*args))
    with dr.disabled(): assert torch.equal(comparison_rows(model(*args)), base)
    assert rel(comparison_rows(model(*args)), two) < tol     # the parametrized weight
    fused = dr.fuse()
    assert fused is model and rel(comparison_rows(fused(*args)), two) < tol
    assert base.shape != two.shape or rel(base, two) > far
    same_form(fused, plain)
    return dr


def same_form(fused, plain):
    "Trap 7: classes, keys, their order, shapes, types, flags; no hook, buffer or parametrization left; loads into a fresh model"
    a, b = fused.state_dict(), plain.state_dict()
    assert list(a) == list(b) and all(a[k].shape == b[k].shape and a[k].dtype == b[k].dtype for k in a)
    assert [(n, type(m)) for n, m in fused.named_modules()] == [(n, type(m)) for n, m in plain.named_modules()]
    assert [(n, p.requires_grad) for n, p in fused.named_parameters()] == [(n, p.requires_grad) for n, p in plain.named_parameters()]
    assert not any(m._forward_pre_hooks or m._forward_hooks or parametrize.is_parametrized(m) for m in fused.modules())
    assert not any(isinstance(m, DenoisingLayer) for m in fused.modules())
    plain.load_state_dict(a, strict=True)


# The algebra.

def test_trap_2_factor_and_indices():
    zero = torch.zeros(3, 3)
    for sched in (DDPM, CODE):
        for t in (1, 2, 500, 1000):
            assert torch.equal(step_affine(sched, t, zero)[0], torch.eye(3).double() / sched.alpha[t].sqrt())
            assert torch.equal(step_affine(sched, t, zero, mode="slides")[0], torch.eye(3).double())
        one = -step_affine(sched, 1, torch.ones(1, 1), mode="slides")[0] + 1
        assert float(one) == pytest.approx(float((sched.beta[1] / sched.alpha[1]).sqrt()), rel=1e-12)
        for t in (0, 1001): pytest.raises(ValueError, step_affine, sched, t, zero)


@pytest.mark.parametrize("sched, t, c1, a, gain", [(CODE, 1, 1.000e-2, 5.0e-5, .999950), (CODE, 2, 7.17e-3, 5.1e-5, .999949), (CODE, 13, 3.23e-3, 6.1e-5, .999939),
                                                   (CODE, 25, 2.63e-3, 7.3e-5, .999927), (DDPM, 25, 6.29e-3, 2.9e-4, .999711), (DDPM, 500, 1.05e-2, 5.1e-3, .994967)])
def test_numbers_of_the_note(sched, t, c1, a, gain):
    W = (1 - sched.alpha_bar[t]).sqrt().view(1, 1)     # the best denoiser of unit variance
    A, slides = (float(step_affine(sched, t, W, mode=m)[0]) for m in ("exact", "slides"))
    assert C1(sched, t) == pytest.approx(c1, rel=6e-3) and float(sched.alpha[t]**-.5 - 1) == pytest.approx(a, rel=2e-2)
    assert A == pytest.approx(gain, abs=1e-6) and A == pytest.approx(float(sched.alpha[t].sqrt()), rel=1e-12)
    assert (1 - slides) / (1 - A) == pytest.approx(2, rel=.02)     # the dropped factor is as large as the effect


def test_trap_3_transpose():
    W, t, E = randn(4, 3), 13, torch.zeros(3, 3).double()
    E[0, 1] = 1
    fused = fuse_linear(W, None, *step_affine(DDPM, t, E))[0] - W / DDPM.alpha[t].sqrt()
    assert torch.allclose(fused[:, 1], -C1(DDPM, t) * W[:, 0], rtol=1e-12) and fused[:, [0, 2]].abs().max() < 1e-15


def test_trap_4_time_embedding():
    W, b, W_D, e, t = randn(4, 3), randn(4, seed=1), randn(3, 3, seed=2), randn(3, seed=3), 13
    A, c = step_affine(DDPM, t, W_D, e_t=e)
    assert torch.allclose(fuse_linear(W, b, A, c)[1], b - C1(DDPM, t) * W @ W_D @ e, rtol=1e-12)
    both = step_affine(DDPM, t, W_D, b_D=e, e_t=e)[1]
    assert torch.allclose(both, -C1(DDPM, t) * (e + W_D @ e), rtol=1e-12)


@pytest.mark.parametrize("dtype, tol", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_fuse_linear_both_places(dtype, tol):
    W, b, x = randn(5, 4), randn(5, seed=1), randn(50, 4, seed=2)
    for place, d in (("pre", 4), ("post", 5)):
        A, c = step_affine(DDPM, 7, randn(d, d, seed=3) / C1(DDPM, 7), randn(d, seed=4) / C1(DDPM, 7))
        true = F.linear(x @ A.T + c, W, b) if place == "pre" else F.linear(x, W, b) @ A.T + c
        W1, b1 = fuse_linear(W.to(dtype), b.to(dtype), A, c, place)
        assert W1.dtype == dtype and rel(F.linear(x.to(dtype), W1, b1), true) < tol < .1 < rel(F.linear(x, W, b), true)
    assert fuse_linear(W, None, torch.eye(4).double())[1] is None
    assert torch.equal(fuse_linear(W, None, torch.eye(4).double(), torch.ones(4).double())[1], W @ torch.ones(4).double())


CONVS = {     # name -> dimensions, channels in, out, and arguments
    "1d": (1, 4, 6, {}), "2d": (2, 4, 6, {}), "3d": (3, 4, 6, {}), "1x1": (2, 4, 6, dict(kernel_size=1)), "zero padding": (2, 4, 6, dict(padding=1)),
    "same": (2, 4, 6, dict(padding="same", dilation=2)), "stride": (2, 4, 6, dict(stride=2, padding=2)), "dilation": (2, 4, 6, dict(dilation=2, padding=1)),
    "reflect": (2, 4, 6, dict(padding=1, padding_mode="reflect")), "circular": (2, 4, 6, dict(padding=1, padding_mode="circular")),
    "replicate": (1, 4, 6, dict(padding=2, padding_mode="replicate")), "groups": (2, 4, 6, dict(groups=2, padding=1)), "depthwise": (2, 4, 4, dict(groups=4, padding=1)),
    "multiplier": (2, 4, 8, dict(groups=4, stride=2)), "no bias": (2, 4, 6, dict(bias=False, padding=1)), "oblong": (2, 4, 6, dict(kernel_size=(1, 3), padding=(0, 1)))}


def conv(name):
    n, i, o, kw = CONVS[name]
    torch.manual_seed(0)
    return getattr(nn, f"Conv{n}d")(i, o, **{"kernel_size": 3, **kw}), torch.randn(3, i, *[5] * n)


@pytest.mark.parametrize("dtype, tol", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", CONVS)
def test_trap_1_and_8_convolutions(name, dtype, tol):
    "On 5 pixels a side, where the border dominates"
    m, x = conv(name)
    dr = check_exact(nn.Sequential(m.to(dtype)), x.to(dtype), tol, far=.1)
    exact = m.bias is not None and (m.padding_mode != "zeros" or m.padding in (0, (0,) * (m.weight.ndim - 2)))
    m, x = conv(name)
    net = nn.Sequential(m.to(dtype))
    if exact: check_exact(net, x.to(dtype), tol, far=.1, bias=True)
    else: pytest.raises(ValueError, denoise_rep, net, example=x.to(dtype), bias=True)
    m, x = conv(name)
    dr = check_exact(nn.Sequential(m.to(dtype)), x.to(dtype), tol, far=.1, bias="auto")
    assert (dr.report().note[0] == "with bias") == exact


def test_unbatched_convolution():
    m, x = conv("zero padding")
    check_exact(nn.Sequential(m.double()), x[0].double(), 1e-12)


def test_trap_8_what_the_refusal_is_good_for():
    m, x = conv("zero padding")
    W, b, x = m.weight.detach().double(), m.bias.detach().double(), x.double()
    A, c = step_affine(DDPM, 13, randn(1, 4, 4), randn(1, 4, seed=1) / C1(DDPM, 13))
    y = torch.einsum("ij,njhw->nihw", A[0], x) + c.view(-1, 1, 1)
    true, fused = F.conv2d(y, W, b, padding=1), F.conv2d(x, *fuse_conv(W, b, A, c), padding=1)
    assert rel(fused, true) > .1 and (fused - true)[..., 1:-1, 1:-1].abs().max() < 1e-12
    for padding in (1, (0, 1), "same"): pytest.raises(ValueError, fuse_conv, W, b, A, c, padding=padding)
    assert fuse_conv(W, b, A, c, padding="valid")[1] is not None


def test_fuse_conv_behind_the_layer():
    for groups in (1, 2):
        W, b, x = randn(6, 4 // groups, 3, 3), randn(6, seed=1), randn(2, 4, 5, 5, seed=2)
        A, c = step_affine(DDPM, 7, randn(groups, 6 // groups, 6 // groups, seed=3) / C1(DDPM, 7), randn(groups, 6 // groups, seed=4) / C1(DDPM, 7))
        y = F.conv2d(x, W, b, padding=1, groups=groups)
        true = torch.einsum("gij,ngjhw->ngihw", A, y.unflatten(1, (groups, -1))).flatten(1, 2) + c.reshape(-1, 1, 1)
        assert rel(F.conv2d(x, *fuse_conv(W, b, A, c, groups, 1, place="post"), padding=1, groups=groups), true) < 1e-12


def test_block_diagonal_matrix_is_accepted_whole():
    W, A = randn(6, 2, 3, 3), randn(2, 2, 2)
    assert torch.equal(fuse_conv(W, None, torch.block_diag(*A), groups=2)[0], fuse_conv(W, None, A, groups=2)[0])


def test_chain_and_collapse():
    "Composition acts in the order given; with the best denoisers the chain is the one-shot estimate (9e-16 in the note), and a step is not idempotent"
    S, mean = torch.cov(randn(6, 500)), randn(6, seed=1)
    second, x, steps = S + torch.outer(mean, mean), randn(20, 6, seed=2), []
    for t in range(30, 0, -1):
        W, b, _ = optimal_denoiser(second, DDPM, t, mean)
        steps.append(step_affine(DDPM, t, W, b))
        if t == 30: shot = (x - DDPM.noise[30] * (x @ W.T + b)) / DDPM.signal[30]
    y = x
    for A, c in steps: y = y @ A.T + c
    A, c = compose(*steps)
    assert rel(x @ A.T + c, y) < 1e-12 and rel(y, shot) < 1e-12
    A, c = compose(*reversed([(randn(6, 6, seed=k), None if k == 1 else randn(6, seed=k + 9)) for k in range(3)]))
    y = x @ randn(6, 6, seed=2).T + randn(6, seed=11)
    assert rel(x @ A.T + c, y @ randn(6, 6, seed=1).T @ randn(6, 6).T + randn(6, seed=9)) < 1e-12
    assert compose((torch.eye(2), None))[1] is None


def test_optimal_denoiser_is_the_regression():
    x, t = randn(3000, 4) @ randn(4, 4, seed=1) + 1, 200
    m = InputMoments().update(x[:1000, None]).update(x[1000:, None])
    assert torch.allclose(m.second[0], x.T @ x / 3000) and torch.allclose(m.mean[0], x.mean(0))
    xs, eps = x.repeat(60, 1), randn(180000, 4, seed=2)
    xt = DDPM.signal[t] * xs + DDPM.noise[t] * eps
    for mean, design in ((None, xt), (m.mean, torch.cat([xt, torch.ones(len(xt), 1)], 1))):
        W, b, floor = optimal_denoiser(m.second, DDPM, t, mean)
        fit = torch.linalg.lstsq(design, eps).solution.T
        assert rel(W[0], fit[:, :4]) < .03 and (b is None or rel(b[0], fit[:, 4]) < .05)
        pred = xt @ W[0].T + (0 if b is None else b[0])
        assert float((eps - pred).square().mean()) == pytest.approx(floor, rel=.01)


def test_trap_17_direction_without_variance():
    "Layer norm: the best W_D there is 1/sqrt(1-abar), so a large change of the weight is none of the output"
    x = F.layer_norm(torch.randn(4000, 16, generator=gen()), (16,))
    net = nn.Sequential(nn.Linear(16, 8, bias=False))
    dr = denoise_rep(net, example=x, t=2)
    dr.solve(x)
    W_D = dr.slots["0"].denoiser.weight[0].detach().double()
    ones = torch.ones(16).double() / 4
    assert float(ones @ W_D @ ones) == pytest.approx(1 / float(DDPM.noise[2]), rel=1e-3)
    W, y = net[0].parametrizations.weight.original.detach().clone(), None
    with torch.no_grad(), dr.disabled(): y = net(x)
    fused = dr.fuse()
    change, effect = rel(fused[0].weight, W), rel(fused(x), y)
    assert change > 100 * effect and effect < 1e-3


# Networks.

class Attention(nn.Module):
    "torch's attention in its forms: self and cross, with weights asked for"
    def __init__(self, batch_first):
        super().__init__()
        self.self_attn, self.cross = (nn.MultiheadAttention(8, 2, batch_first=batch_first) for _ in range(2))
        nn.init.normal_(self.self_attn.in_proj_bias), nn.init.normal_(self.cross.in_proj_bias)
    def forward(self, x, memory):
        x = x + self.self_attn(x, x, x, need_weights=False)[0]
        return self.cross(x, memory, memory)


class Net(nn.Module):
    "One of everything; the head is made first and acts last"
    def __init__(self, width=8, dropout=0.):
        super().__init__()
        self.head = nn.Linear(width, 10)
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.patch, self.depth = nn.Conv2d(4, width, 2, 2), nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        block = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=dropout, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
    def forward(self, x): return self.head(self.blocks(self.depth(self.patch(self.norm(self.stem(x)).relu())).flatten(2).mT).mean(1))


def net(seed=0, **kwargs):
    torch.manual_seed(seed)
    return Net(**kwargs).eval()


X = torch.randn(6, 1, 8, 8, generator=gen(7))


@pytest.mark.parametrize("dtype, tol", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_trap_1_and_7_a_network_with_everything(dtype, tol):
    assert len(check_exact(net().to(dtype), X.to(dtype), tol, bias="auto").slots) == 12


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_attention(batch_first, bias):
    torch.manual_seed(0)
    m, x = Attention(batch_first).double(), (randn(3, 5, 8), randn(3, 5, 8, seed=1))
    dr = check_exact(m, x, 1e-12, bias=bias)
    assert dr.report().set_index("layer").calls.to_dict() == {"self_attn": 1, "self_attn.out_proj": 1, "cross": 2, "cross.out_proj": 1}


def test_trap_12_times_in_order_of_execution():
    "N..1, each once; the authors' recursion gives 8,7,8,7,... over four blocks"
    class Blocks(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)) for _ in range(4))
        def forward(self, x):
            for b in reversed(self.blocks): x = x + b(x)
            return x
    dr = denoise_rep(Blocks(), example=torch.randn(2, 4))
    times = {n: s.denoiser.t for n, s in dr.slots.items()}
    assert list(times.values()) == [2, 1, 4, 3, 6, 5, 8, 7] and times["blocks.3.0"] == 8
    assert dr.report().t.tolist() == list(range(8, 0, -1))


def test_a_layer_used_twice_is_one_layer():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        def forward(self, x): return self.b(self.a(self.a(x)))
    dr = check_exact(Twice().double(), randn(3, 4), 1e-12)
    assert dr.report().calls.tolist() == [2, 1] and dr.report().t.tolist() == [2, 1]


def test_trap_13_selection():
    choose = lambda layers, **kw: set(denoise_rep(net(), layers, example=X, **kw).slots)
    assert choose(r"blocks\..*linear\d") == {f"blocks.layers.{i}.linear{k}" for i in (0, 1) for k in (1, 2)}
    assert choose(nn.Conv2d) == choose((nn.Conv2d,)) == {"stem", "patch", "depth"}
    assert choose(["head", "stem"]) == {"head", "stem"}
    assert choose(lambda n, m: n == "patch") == {"patch"}
    assert choose("all", exclude=r"blocks.*|head") == {"stem", "patch", "depth"}
    assert choose(nn.MultiheadAttention) == {f"blocks.layers.{i}.self_attn" for i in (0, 1)}
    with pytest.raises(ValueError, match="layers: 'mlp' matches nothing"): choose("mlp")     # a regex for whole names, no substring


class Idle(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.never, self.other = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    def forward(self, x): return self.used(x) @ self.other.weight.T


@pytest.mark.parametrize("name", ["never", "other"])
def test_trap_14_a_layer_that_is_never_used_is_an_error(name):
    m = Idle()
    before = list(m.state_dict())
    with pytest.raises(ValueError, match=f"'{name}'.*no linear operation"): denoise_rep(m, ["used", name], example=torch.randn(2, 4))
    assert list(m.state_dict()) == before and all(p.requires_grad for p in m.parameters())     # left as it was found
    dr = denoise_rep(m, ["used", name], t=3)     # without an example it is found out at the loss
    with dr.recording(): m(torch.randn(2, 4))
    with pytest.raises(ValueError, match=f"'{name}'"): dr.loss()


def test_trap_5_fusing_is_not_random():
    outs = []
    for seed in (1, 2):
        dr = wild(denoise_rep(net(), example=X))
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        outs.append(dr.fuse().state_dict())
        assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(outs[0].values(), outs[1].values()))


def test_trap_6_no_second_time():
    dr = wild(denoise_rep(net(), example=X))
    m = dr.fuse()
    for f in (dr.fuse, dr.unload, lambda: dr.solve(X), lambda: dr.recording().__enter__(), lambda: dr.save("x")):
        with pytest.raises(RuntimeError, match="fused already"): f()
    for copy in (m, deepcopy(m)):
        with pytest.raises(ValueError, match=r"already fused.*W A\^2"): denoise_rep(copy, example=X)
    with pytest.raises(ValueError, match="has a denoising layer"): denoise_rep(denoise_rep(net(), example=X).model, example=X)


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
    assert dr.unload() is m and all(torch.equal(a, b) for a, b in zip(m.state_dict().values(), plain.state_dict().values()))
    assert [p.requires_grad for p in m.parameters()] == [p.requires_grad for p in plain.parameters()]
    same_form(m, plain)
    denoise_rep(m, example=X)     # unloaded, it may have new ones


def test_a_copy_is_a_copy():
    "parametrize shares its classes between copies (an EMA, say): removing from one must not break the other"
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
    bake, cls = type(slot)._bake, type(slot)
    def wrong(self):
        bake(self)
        if self is slot: self.denoiser.baked["weight"] = self.denoiser.baked["weight"] * 1.001
    cls._bake = wrong
    try:
        with pytest.raises(ValueError, match="fuse: differs.*patch"): dr.fuse()
    finally: cls._bake = bake
    assert dr.state == "denoised" and dr.slots["patch"].denoiser.baked is None
    dr.fuse()


def test_trap_9_equal_work():
    m = net()
    def flops(f):
        with torch.no_grad(), FlopCounterMode(display=False) as count: f()
        return count.get_total_flops()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)     # its kernel is invisible to the counter
    try:
        base, dr = flops(lambda: m(X)), wild(denoise_rep(m, example=X))
        with dr.two_branch(): two = flops(lambda: m(X))
        fused = dr.fuse()
        assert flops(lambda: fused(X)) == base < .9 * two
    finally: torch.backends.mha.set_fastpath_enabled(fast)
    assert sum(p.numel() for p in fused.parameters()) == sum(p.numel() for p in net().parameters())


def test_trap_16_half_precision():
    "98.6% of bf16 weights do not move when a step of relative size 1e-4 is fused"
    x = torch.randn(40000, 64, generator=gen())
    torch.manual_seed(0)
    for dtype, share in ((torch.bfloat16, .98), (torch.float16, .85)):
        m = nn.Sequential(nn.Linear(64, 256)).to(dtype)
        before = m[0].weight.detach().clone()
        with pytest.warns(UserWarning, match="half precision"): dr = denoise_rep(m, sched=CODE, t=8, example=x[:8].to(dtype))
        W = optimal_denoiser(InputMoments().update(x[:, None]).second, CODE, 8)[0]
        with torch.no_grad(): dr.slots["0"].denoiser.weight.copy_(W)
        with pytest.warns(UserWarning, match=r"\d% of the half-precision weights do not move"): dr.fuse()
        assert m[0].weight.dtype == dtype and float((m[0].weight == before).float().mean()) > share


def test_trap_18_the_saved_artefact(tmp_path):
    "What is evaluated is what is saved: a plain file for a plain model"
    m = wild(denoise_rep(net(), example=X)).fuse()
    torch.save(m.state_dict(), tmp_path / "fused.pt")
    fresh = net(seed=1)
    fresh.load_state_dict(torch.load(tmp_path / "fused.pt", weights_only=True), strict=True)
    with torch.no_grad(): assert torch.equal(fresh(X), m(X))


def test_trap_19_loss_is_a_sum_of_means():
    "Zero denoisers cost sqrt(2/pi) = .798 a layer in L1 and 1 in L2, whatever the batch, the image and the width"
    for kind, floor in (("l1", .798), ("l2", 1.), ("l1+l2", 1.798)):
        for width, x in ((8, torch.randn(200, 1, 8, 8, generator=gen())), (16, torch.randn(300, 1, 12, 12, generator=gen()))):
            dr = denoise_rep(net(width=width), loss=kind, example=X)
            with dr.recording(gen()): dr.model(x)
            assert float(dr.loss().detach()) / len(dr.slots) == pytest.approx(floor, abs=.03)


def test_trap_22_autocast_does_not_reach_the_denoiser():
    dr, x = wild(denoise_rep(net(), example=X)), torch.randn(50, 1, 8, generator=gen())
    d, seen = dr.slots["head"].denoiser, []
    for on in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=on), torch.no_grad():
            seen.append((dr.model.head.weight, dr.model.blocks.layers[0].linear1.weight, d.side_loss(x, "l1", gen())))
            with dr.recording(gen()): dr.model(X)
        assert all(v.dtype == torch.float32 for v in dr.losses().values())
    assert all(torch.equal(a, b) for a, b in zip(*seen))


def test_trap_22_every_process_fuses_the_same(tmp_path):
    "Two gloo processes train on halves of the batches, with noise of their own, and fuse: one model, of the original form, like that of one process"
    env = dict(os.environ, OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore")
    for folder, launch in (("one", []), ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"])):
        (tmp_path/folder).mkdir()
        subprocess.run([sys.executable, *launch, str(Path(__file__).with_name("run_denoising.py")), str(tmp_path/folder)], check=True, env=env,
                       stdout=subprocess.DEVNULL)
    base, one, a, b = (load_file(tmp_path/f) for f in ("two/base.safetensors", "one/fused0.safetensors", "two/fused0.safetensors", "two/fused1.safetensors"))
    assert (int(one.pop("processes")), int(a.pop("processes")), int(b.pop("processes"))) == (1, 2, 2)
    l1, la, lb = (o.pop("losses") for o in (one, a, b))
    assert list(a) == list(b) == list(base) and all(torch.equal(a[k], b[k]) for k in a)
    assert all(rel(a[k], base[k]) > 1e-3 for k in a if k.endswith("weight")) and all(torch.equal(a[k], base[k]) for k in a if k.endswith("bias"))
    assert len(l1) == len(la) and la[-4:].mean() < .95*la[:4].mean() and abs(la[-4:].mean()/l1[-4:].mean() - 1) < .01
    assert torch.equal(la, lb)     # of the whole batch


def test_trap_23_noise_has_a_name():
    "'shared': one z a layer, for all images and positions, of standard deviation sqrt(beta_t)"
    m = nn.Sequential(nn.Linear(5, 5, bias=False))
    with torch.no_grad(): m[0].weight.copy_(torch.eye(5))
    dr = denoise_rep(m, t=500, example=torch.zeros(1, 5))
    draws = []
    with torch.no_grad():
        for seed in range(400):
            with dr.two_branch("shared", gen(seed)): y = m(torch.zeros(3, 7, 5))
            assert (y == y[0, 0]).all()
            draws.append(y[0, 0])
        with dr.two_branch(): assert (m(torch.zeros(3, 5)) == 0).all()
    assert float(torch.stack(draws).std()) == pytest.approx(float(DDPM.beta[500].sqrt()), rel=.05)
    with pytest.raises(ValueError, match="noise: one of"): dr.two_branch("each").__enter__()


def test_gradients_agree_between_the_two_forms():
    "The parametrized weight and the explicit second branch are one function of the denoisers"
    dr, grads = wild(denoise_rep(net().double(), example=X.double(), bias="auto")), []
    for two in (False, True):
        for p in dr.parameters(): p.grad = None
        if two:
            with dr.two_branch(): out = dr.model(X.double())
        else: out = dr.model(X.double())
        F.cross_entropy(out, torch.arange(len(X))).backward()
        grads.append([p.grad.clone() for p in dr.parameters()])
    assert all(rel(a, b) < 1e-9 for a, b in zip(*grads))


def test_an_error_inside_leaves_nothing_behind():
    dr = wild(denoise_rep(net(), example=X))
    with torch.no_grad():
        out = dr.model(X)
        for context in (dr.disabled, dr.two_branch, dr.recording):
            with pytest.raises(RuntimeError), context(): dr.model(torch.zeros(2, 3, 8, 8))
            assert torch.equal(dr.model(X), out)


def test_looking_keeps_every_module_in_its_mode():
    m = net().train()
    m.norm.eval()
    stats = m.norm.running_mean.clone()
    dr = denoise_rep(m, example=X)
    dr.solve(X)
    assert m.training and not m.norm.training and torch.equal(stats, m.norm.running_mean)


def test_solve_looks_at_the_original_network():
    "Whatever the denoisers were before, the moments are those of features without them"
    res = []
    for start in (lambda dr: dr, wild):
        dr = start(denoise_rep(net(), example=X))
        dr.solve(X)
        res.append(dr.parameters())
    assert all(torch.equal(a, b) for a, b in zip(*res))


def test_solve_streams():
    "Batches, a tensor, and a loader's labels that nobody looks at: the same denoisers"
    res = []
    for dl in (X, [X[:2], X[2:]], [(X[:4], "label"), (X[4:], "label")]):
        dr = denoise_rep(net(), example=X, bias="auto")
        table = dr.solve(dl, progress=False)
        res.append([p.detach().clone() for p in dr.parameters()])
    assert all(rel(a, b) < 1e-4 for other in res[1:] for a, b in zip(res[0], other)) and table.rows.max() == 6 * 64
    with pytest.raises(ValueError, match="dl: no batches"): dr.solve([], progress=False)


# Training.

@pytest.fixture(scope="module")
def dls(): return image_dls("digits", bs=128, device="cpu")


def fit(dls, dr, *args, epochs=1, lr=1e-2, cbs=None, **kwargs):
    learn = denoiserep_learner(dls, dr, *args, cbs=cbs, **kwargs)
    with learn.no_bar(), learn.no_logging(): learn.fit(epochs, lr)
    return learn


@pytest.mark.parametrize("recipe", ["label_free", "label_aug"])
def test_trap_10_the_backbone_is_untouched(dls, recipe):
    m = net(dropout=.5)
    digest, stats = backbone_digest(m), m.norm.running_mean.clone()
    dr = denoise_rep(m, example=X)
    learn = fit(dls, dr, recipe)
    assert {id(p) for g in learn.opt.param_lists for p in g} == {id(p) for p in dr.parameters()}
    assert backbone_digest(m) == digest and torch.equal(stats, m.norm.running_mean) and not dr.handles and not m._forward_hooks
    assert all(bool((p != 0).any()) for p in dr.parameters())     # trap 11: each of them learns
    assert learn.opt.hypers[0]["wd"] == 0     # trap 21
    dr.unload()
    assert backbone_digest(m) == digest


def test_trap_10_the_proof_can_fail(dls):
    class Drift(Callback):
        def after_batch(self): self.model.norm.running_mean.add_(1e-6)
    with pytest.raises(RuntimeError, match="the backbone changed"): fit(dls, denoise_rep(net(), example=X), cbs=Drift())
    dr = denoise_rep(net(), example=X)
    learn = Learner(dls, dr.model, nn.CrossEntropyLoss(), opt_func=AdamW, splitter=lambda m: [list(m.parameters())], cbs=DenoiseRepCB(dr))
    with pytest.raises(ValueError, match="splitter"), learn.no_bar(), learn.no_logging(): learn.fit(1)


def test_backbone_digest_sees_everything():
    m, seen = net(), set()
    for change in (lambda: None, lambda: m.norm.num_batches_tracked.add_(1), lambda: m.norm.running_var.mul_(1.0001), lambda: m.head.bias.data.add_(1e-7), lambda: m.half()):
        change()
        seen.add(backbone_digest(m))
    assert len(seen) == 5


def test_trap_11_gradients(dls):
    m = net()
    dr = wild(denoise_rep(m, example=X), .1)
    ours = {id(p) for p in dr.parameters()}
    with dr.disabled(), dr.recording(): m(X)
    dr.loss().backward()
    assert all(p.grad is None for p in m.parameters() if id(p) not in ours) and all(p.grad.abs().max() > 0 for p in dr.parameters())
    for p in dr.parameters(): p.grad = None
    F.cross_entropy(m(X), torch.arange(6)).backward()     # from the task alone; in the reference there is none
    assert all(p.grad.abs().max() > 0 for p in dr.parameters())
    assert all(p.grad is None for p in m.parameters() if id(p) not in ours)


def test_label_free_reads_no_label(dls):
    class Shuffled(Callback):
        def before_batch(self): self.learn.yb = (torch.full_like(self.yb[0], -1),)
    res = []
    for cbs in (None, Shuffled()):
        dr = denoise_rep(net(), example=X)
        dls.train.epoch = 0
        fit(dls, dr, cbs=cbs)
        res.append(torch.cat([p.detach().flatten() for p in dr.parameters()]))
    assert torch.equal(*res)     # and a seed gives the same result twice


@pytest.mark.parametrize("recipe, through", [("label_free", False), ("label_aug", True)])
def test_which_network_the_features_are_from(dls, recipe, through):
    "label_free denoises those of the original network; label_aug goes through the denoisers, or they had no gradient from the task"
    dr, same = wild(denoise_rep(net(), example=X)), []
    class Look(Callback):
        def after_pred(self):
            if not self.training: return
            with torch.no_grad(), dr.disabled(): same.append(rel(self.pred.detach(), self.model(self.x)) < 1e-5)
    fit(dls, dr, recipe, cbs=Look())
    assert same and all(s != through for s in same)


def test_label_aug_is_the_convex_sum(dls):
    seen = []
    class Look(Callback):
        order = 5
        def after_loss(self): seen.append((float(self.learn.loss), float(F.cross_entropy(self.pred, self.y).detach()), float(dr.loss().detach())))
    dr = denoise_rep(net(), example=X)
    fit(dls, dr, "label_aug", lam=.3, cbs=Look())
    assert all(total == pytest.approx(.7 * task + .3 * side, rel=1e-5) for total, task, side in seen)


@pytest.mark.parametrize("opt_func", [AdamW, Adam])
def test_alternation_and_its_control(dls, opt_func):
    """Epoch 0 for the denoisers, epoch 1 for the backbone; the control sees the same batches, rates and number of steps. fastai's own Adam
    zeroes gradients rather than remove them, so that momentum and decay would move what is frozen."""
    runs = {}
    class Look(Callback):
        order = 20
        def before_fit(self): self.rows = []
        def after_epoch(self): self.rows.append((backbone_digest(self.model), [p.detach().clone() for p in dr.parameters()]))
        def before_step(self): self.steps.append((float(self.opt.hypers[-1]["lr"]), float(self.xb[0].double().sum())))
        steps = []
    for recipe in ("alternate", "control"):
        look, dr = Look(), denoise_rep(net(), example=X)
        look.steps, start, dls.train.epoch = [], backbone_digest(dr.model), 0
        fit(dls, dr, recipe, epochs=2, phase=1, lr=1e-3, cbs=look, opt_func=opt_func, noise="shared" if recipe == "alternate" else None)
        (first, d0), (second, d1) = look.rows
        assert first == start != second     # the backbone learns in the second epoch only, batch norm included
        assert all(torch.equal(a, b) for a, b in zip(d0, d1)) and any(bool(p.any()) for p in d0) == (recipe == "alternate")
        runs[recipe] = look.steps[-len(dls.train):]
    assert runs["alternate"] == runs["control"]


@pytest.mark.parametrize("noise", [None, "shared"])
def test_alternation_trains_the_backbone_through_the_denoisers(dls, noise):
    dr, diffs = wild(denoise_rep(net(), example=X)), []
    class Look(Callback):
        def after_pred(self):
            if not (self.training and self.denoise_rep_cb.backbone): return
            with torch.no_grad():
                with dr.disabled(): plain = self.model(self.x)
                diffs.append((rel(self.pred.detach(), self.model(self.x)), rel(self.pred.detach(), plain)))
    fit(dls, dr, "alternate", epochs=2, phase=1, noise=noise, lr=1e-6, cbs=Look())
    assert len(diffs) == len(dls.train)
    for denoised, plain in diffs: assert plain > .01 and (denoised < 1e-5 if noise is None else 1e-4 < denoised < plain)


def test_validate_without_a_fit(dls):
    dr = denoise_rep(net(), example=X)
    for lam in (0., 1.):
        learn = denoiserep_learner(dls, dr, "label_aug", lam=lam)
        with learn.no_bar(), learn.no_logging(): loss = learn.validate()[0]
        with torch.no_grad(): task = torch.cat([F.cross_entropy(dr.model(x), y, reduction="none") for x, y in dls.valid]).mean()
        assert loss == pytest.approx(float(task) if lam == 0 else .798 * len(dr.slots), rel=1e-5 if lam == 0 else .05)
        assert not dr.handles and not dr.model._forward_hooks


def test_train_mode_keeps_norms_and_dropout_still(dls):
    modes = {}
    class Look(Callback):
        def before_batch(self):
            if self.training: modes.update({n: m.training for n, m in self.model.named_modules()})
    dr = denoise_rep(net(dropout=.1), example=X)
    fit(dls, dr, "label_aug", train_mode=True, cbs=Look())
    assert modes["head"] and not modes["norm"] and not modes["blocks.layers.0.dropout1"]


def test_merged_data_sets(dls):
    other = image_dls(torch.randint(0, 255, (400, 8, 8), dtype=torch.uint8), bs=64, device="cpu")
    both = merge_loaders(dls, other, seed=1)
    batches = list(both.train)
    assert len(batches) == len(both.train) == len(dls.train) + len(other.train) and all((y == -1).all() for _, y in batches)
    assert Counter(len(x) for x, _ in batches) == {128: len(dls.train), 64: len(other.train)}
    sizes = [len(x) for x, _ in batches]
    assert sizes != sorted(sizes) and sizes != sorted(sizes, reverse=True)     # mixed
    assert both.valid is dls.valid
    dr = denoise_rep(net(), example=X)
    fit(both, dr)
    assert bool(dr.parameters()[0].any())
    with pytest.raises(ValueError, match="recipe: 'label_aug' reads labels"): denoiserep_learner(both, dr, "label_aug")
    with pytest.raises(ValueError, match="different ranges"): merge_loaders(dls, image_dls("digits", range=(0., 1.), device="cpu"))
    with pytest.raises(ValueError, match="at least two"): merge_loaders(dls)


def test_data_without_targets(dls):
    "fastai makes no step for a batch without targets; here it must"
    class Bare:
        n_inp, bs = 1, 6
        def __len__(self): return 2
        def __iter__(self): return iter([(X,), (X,)])
        def to(self, device): return self
    dr = denoise_rep(net(), example=X)
    fit(DataLoaders(Bare(), Bare()), dr)
    assert all(bool(p.any()) for p in dr.parameters())


def test_training_reaches_the_closed_form():
    "Positive control: side loss of the trained denoiser within 2% of that of the closed form"
    x = torch.randn(4096, 6, generator=gen()) @ torch.randn(6, 6, generator=gen(1)) / 3
    m = nn.Sequential(nn.Linear(6, 3))
    dr, best = (denoise_rep(deepcopy(m), loss="l2", t=300, example=x[:4]) for _ in range(2))
    floor = best.solve(x).floor[0]
    opt, g = torch.optim.Adam(dr.parameters(), 2e-2), gen()
    for _ in range(300):
        with dr.recording(g): dr.model(x)
        opt.zero_grad()
        dr.loss().backward()
        opt.step()
    with torch.no_grad(), dr.recording(gen(5)): dr.model(x)
    assert floor < .9 and float(dr.loss()) == pytest.approx(floor, rel=.02)
    assert rel(dr.parameters()[0], best.parameters()[0]) < .1


# Files.

def test_save_and_load(tmp_path):
    dr = wild(denoise_rep(net(), example=X, bias="auto"))
    dr.save(tmp_path / "d.safetensors", note="a test")
    again = denoise_rep(net(), example=X, bias="auto").load(tmp_path / "d.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(dr.parameters(), again.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(dr.fuse().state_dict().values(), again.fuse().state_dict().values()))


@pytest.mark.parametrize("make, what", [
    (lambda: denoise_rep(net(seed=1), example=X), "backbone"), (lambda: denoise_rep(net(), r"blocks.*", example=X), "layers"),
    (lambda: denoise_rep(net(), t=5, example=X), "layers"), (lambda: denoise_rep(net(), sched=CODE, example=X), "sched"),
    (lambda: denoise_rep(net(), mode="slides", example=X), "mode"), (lambda: denoise_rep(net(), scale=2., example=X), "scale"),
    (lambda: denoise_rep(net(width=16), example=X), "layers"), (lambda: denoise_rep(net(), bias="auto", example=X), "layers")])
def test_state_of_another_model_is_refused(tmp_path, make, what):
    denoise_rep(net(), example=X).save(tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match=f"belongs to another model: its {what}"): make().load(tmp_path / "d.safetensors")


def test_other_files_are_refused(tmp_path):
    save_checkpoint(tmp_path / "c.safetensors", DDGM(UNet(channels=1, width=32, mult=(1,), n_blocks=1, attn=()), DDPM, (1, 8, 8)))
    with pytest.raises(ValueError, match="holds a checkpoint, not denoising layers"): denoise_rep(net(), example=X).load(tmp_path / "c.safetensors")


# DenoiseRep^-, and the positive control of the method.

def test_minus_is_its_chain_and_fits_a_head():
    for shared in (False, True):
        m = DenoiseRepMinus(5, DDPM, 7, shared=shared).double()
        with torch.no_grad():
            for p in m.parameters(): p.copy_(randn(*p.shape, seed=p.ndim) * 20)
            x, head, y = randn(9, 3, 5), nn.Linear(5, 4).double(), randn(9, 3, 5)
            for t in range(7, 0, -1):
                W, b = m.weight[0 if shared else t - 1], m.bias[0 if shared else t - 1]
                y = (y - DDPM.beta[t] / DDPM.noise[t] * (y @ W.T + b)) / DDPM.alpha[t].sqrt()
            assert rel(m(x), y) < 1e-12
            assert rel(m.fuse_into(head)(x), head(m(x))) < 1e-12 < .1 < rel(head(x), head(m(x)))
    noisy = m(x, noise=True, generator=gen())
    assert not torch.equal(noisy, m(x)) and torch.equal(noisy, m(x, noise=True, generator=gen()))


def test_minus_learns_what_it_solves():
    x = (torch.randn(4000, 4, generator=gen()) @ torch.randn(4, 4, generator=gen(1)) / 2).double()
    best = DenoiseRepMinus(4, DDPM, 100).double().solve(x)
    losses = [float(best.loss(x, gen(s)).detach()) for s in range(20)]
    true = sum(optimal_denoiser(x.T @ x / 4000, DDPM, t, x.mean(0))[2] for t in range(1, 101)) / 100
    assert sum(losses) / 20 == pytest.approx(true, rel=.01)
    best.loss(x, gen()).backward()
    assert all(bool(p.grad.any()) for p in best.parameters())


def average_precision(f, y):
    f = F.normalize(f, dim=1)
    hit = (y[(f @ f.T).fill_diagonal_(-9).argsort(1, descending=True)[:, :-1]] == y[:, None]).double()
    return float(((hit.cumsum(1) / torch.arange(1, len(y))) * hit).sum(1).div(hit.sum(1)).mean())


def test_positive_control_retrieval():
    "8 dimensions of signal in 256, noise of time 100, cosine: noisy .742, one step .744, chain .792, clean .827 in the note; and the Wiener error"
    rows = []
    for seed in range(4):
        g = gen(seed)
        r = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64)
        y, basis = torch.arange(20).repeat_interleave(20), torch.linalg.qr(r(256, 256))[0][:, :8]
        x0 = (2 * r(20, 8)[y] + r(400, 8)) @ basis.T
        xt, ab = DDPM.signal[100] * x0 + DDPM.noise[100] * r(400, 256), DDPM.alpha_bar[100]
        chain = DenoiseRepMinus(256, DDPM, 100, bias=False).double().solve(x0)
        with torch.no_grad(): whole, one = chain(xt), xt @ step_affine(DDPM, 100, chain.weight[99])[0].T
        eig = torch.linalg.eigvalsh(x0.T @ x0 / 400)
        wiener = float((eig * (1 - ab) / (ab * eig + 1 - ab)).sum())
        rows.append([average_precision(f, y) for f in (xt, one, whole, x0)] + [float((whole - x0).square().sum(1).mean()) / wiener])
    noisy, one, whole, clean, error = torch.tensor(rows).mean(0).tolist()
    assert noisy == pytest.approx(.742, abs=.03) and clean == pytest.approx(.827, abs=.03)
    assert whole - noisy > .03 and abs(one - noisy) < .01 and whole < clean
    assert error == pytest.approx(1, abs=.05)


# Networks of others. Small layers of each kind by default, all of them with --run-slow.

def vit():
    import torchvision.models as tv
    m = tv.vit_b_16(weights=None, image_size=32)
    nn.init.normal_(m.heads.head.weight, std=.02)     # torchvision starts it at zero
    return m, torch.randn(1, 3, 32, 32), r"conv_proj|heads.head|encoder\.layers\.encoder_layer_(0|11)\.(self_attention.*|mlp\.0)", 6


def swin():
    import torchvision.models as tv
    return tv.swin_v2_t(weights=None), torch.randn(1, 3, 64, 64), r"features\.[01].*(\d|qkv|proj)", 9


def resnet():
    import torchvision.models as tv
    return tv.resnet50(weights=None), torch.randn(1, 3, 64, 64), r"conv1|layer[12].*|layer3\.0.*", 29


def convnext():
    import torchvision.models as tv
    return tv.convnext_tiny(weights=None), torch.randn(1, 3, 64, 64), r"features\.[0123].*", 26


def fcn():
    from torchvision.models.segmentation import fcn_resnet50
    return fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True), torch.randn(1, 3, 32, 32), r"backbone\.(conv1|layer[12]).*|.*classifier\.4", 26


def frcnn():
    from torchvision.models.detection import fasterrcnn_resnet50_fpn
    m = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, min_size=64, max_size=64, box_detections_per_img=10)
    return m, [torch.rand(3, 64, 64)], r"backbone\.fpn.*|rpn.*|roi_heads.*predictor.*", 12


@pytest.mark.parametrize("make", [vit, swin, resnet, convnext, fcn, frcnn])
def test_torchvision(make):
    torch.manual_seed(0)
    m, x, layers, n = make()
    x = [i.double() for i in x] if isinstance(x, list) else x.double()
    dr = check_exact(m.double(), x, 1e-10, far=1e-3, size=.2, layers=layers, exclude=r".*cpb_mlp.*")
    assert abs(len(dr.slots) - n) <= 12, len(dr.slots)
    assert sorted(s.denoiser.t for s in dr.slots.values()) == list(range(1, len(dr.slots) + 1))


@pytest.mark.slow
@pytest.mark.parametrize("make", [vit, swin, resnet, convnext, fcn, frcnn])
def test_torchvision_every_layer(make):
    "float32: layers to 1e-5, as `fuse` measures them, and a training step of the side loss"
    torch.manual_seed(0)
    m, x, *_ = make()
    plain = deepcopy(m).eval()
    dr = wild(denoise_rep(m.eval(), example=x, exclude=r".*cpb_mlp.*|.*fc6|encoder\.layers\.encoder_layer_([1-9]|10)\..*"), .1)
    with dr.recording(): m(x)
    dr.loss().backward()
    assert all(p.grad is not None for p in dr.parameters())
    dr.fuse()
    assert dr.report().fuse_error.max() < 1e-5
    same_form(m, plain)


def test_timm():
    "Fused qkv of a vision transformer, depthwise convolutions of a ConvNeXt: by module type"
    timm = pytest.importorskip("timm", reason="bench extra")
    for name, size in (("vit_tiny_patch16_224", dict(img_size=32)), ("convnext_atto", {})):
        torch.manual_seed(0)
        m = timm.create_model(name, num_classes=7, **size)
        dr = check_exact(m.double(), randn(1, 3, 32, 32), 1e-10, far=1e-3, size=.2)
        assert any("qkv" in n for n in dr.slots) or any(s.module.groups > 1 for s in dr.slots.values() if isinstance(s.module, nn.Conv2d))


def test_transformers():
    "A model that takes named arguments and returns an object"
    hf = pytest.importorskip("transformers", reason="bench extra")
    torch.manual_seed(0)
    conf = hf.ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8, num_labels=5)
    m = hf.ViTForImageClassification(conf).double().eval()
    plain, x = deepcopy(m), dict(pixel_values=randn(2, 3, 32, 32))
    dr = wild(denoise_rep(m, example=x))
    with torch.no_grad():
        base = plain(**x).logits
        with dr.two_branch(): two = m(**x).logits
        fused = dr.fuse()
        assert rel(fused(**x).logits, two) < 1e-12 < .01 < rel(base, two)
    same_form(fused, plain)


def test_side_loss_of_some_rows():
    "A random part of the feature vectors: the same loss in expectation, and small layers as they are"
    x = torch.randn(2000, 1, 8, generator=gen())
    d = wild(denoise_rep(nn.Sequential(nn.Linear(8, 3)), t=300, example=x[:2, 0]), .1).slots["0"].denoiser
    whole, some = (torch.stack([d.side_loss(x, "l2", gen(s), r) for s in range(30)]).mean() for r in (None, 200))
    assert float(some) == pytest.approx(float(whole), rel=.03) and torch.equal(d.side_loss(x, "l1", gen(), 5000), d.side_loss(x, "l1", gen()))


def test_noise_control_trains_with_noise_and_nothing_else(dls):
    "Denoisers of zero in the slides' formula leave features alone: what differs from the control is the noise"
    weights = {}
    for noise in (None, "shared"):
        dr = denoise_rep(net(), example=X, mode="slides")
        dls.train.epoch = 0
        fit(dls, dr, "control", epochs=2, phase=1, noise=noise, lr=1e-3)
        assert not any(bool(p.any()) for p in dr.parameters())
        weights[noise] = dr.unload().head.weight.detach().clone()
    assert 0 < rel(weights["shared"], weights[None]) < .5


def test_trap_13_and_15_swin_v2():
    "Its position MLP is a linear layer by type; a third of its qkv bias is set to zero on the way, so a denoiser with bias is refused there"
    torch.manual_seed(0)
    m, x, *_ = swin()
    assert {"features.1.0.attn.cpb_mlp.0"} <= set(denoise_rep(deepcopy(m), r"features\.1\.0\..*", example=x).slots)
    assert not any("cpb" in n for n in denoise_rep(deepcopy(m), r"features\.1\.0\..*", example=x, exclude=".*cpb_mlp.*").slots)
    with pytest.raises(ValueError, match="bias: that of features.1.0.attn.qkv is changed"): denoise_rep(m, ["features.1.0.attn.qkv"], example=x, bias=True)
    denoise_rep(m, ["features.1.0.attn.proj"], example=x, bias=True)


# What is refused.

def tied():
    m = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    m[1].weight = m[0].weight
    return m


def seq(*layers): return nn.Sequential(*layers)
def old_weight_norm():
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return seq(nn.utils.weight_norm(nn.Linear(4, 4)))


E = torch.randn(2, 4)
REFUSED = {
    "nothing matched": (lambda: denoise_rep(net(), "nothing", example=X), "layers: 'nothing' matches nothing.*it could be 'head', 'stem'"),
    "no layer at all": (lambda: denoise_rep(nn.ReLU(), example=X), "matches nothing.*none with weights"),
    "unknown name": (lambda: denoise_rep(net(), ["stem", "stam"], example=X), r"no module \['stam'\]"),
    "a norm by name": (lambda: denoise_rep(net(), ["norm"], example=X), "norm: BatchNorm2d: not a linear layer"),
    "tied weights": (lambda: denoise_rep(tied(), r"\d", example=E), "0: tied: 2 modules share this weight"),
    "transposed": (lambda: denoise_rep(seq(nn.ConvTranspose2d(1, 4, 3)), ".*", example=X), "transposed convolution"),
    "transposed, by type": (lambda: denoise_rep(seq(nn.Conv2d(1, 1, 1), nn.ConvTranspose2d(1, 4, 3)), nn.ConvTranspose2d, example=X), "transposed convolution"),
    "embedding": (lambda: denoise_rep(seq(nn.Embedding(4, 4)), "0", example=torch.tensor([1])), "its input is an index"),
    "recurrent": (lambda: denoise_rep(seq(nn.LSTM(4, 4)), "0", example=E), "recurrent"),
    "bilinear": (lambda: denoise_rep(seq(nn.Bilinear(4, 4, 4)), "0", example=E), "two inputs"),
    "lazy": (lambda: denoise_rep(seq(nn.LazyLinear(4)), "0", example=E), "lazy: call the model once"),
    "weight norm": (lambda: denoise_rep(seq(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))), "0", example=E), "already parametrized"),
    "old weight norm": (lambda: denoise_rep(old_weight_norm(), "0", example=E), "not a parameter"),
    "attention with kdim": (lambda: denoise_rep(seq(nn.MultiheadAttention(4, 2, kdim=6)), "0", t=1), "kdim or vdim of their own"),
    "bias without a bias": (lambda: denoise_rep(seq(nn.Linear(4, 4, bias=False)), example=E, bias=True), "bias: .*no bias to fuse it into"),
    "bias and zero padding": (lambda: denoise_rep(net(), ["stem"], example=X, bias=True), "bias: .*zero padding"),
    "bias unknown": (lambda: denoise_rep(net(), example=X, bias="yes"), "bias: one of"),
    "depth without example": (lambda: denoise_rep(net()), "example: t='depth' needs a batch"),
    "too many layers": (lambda: denoise_rep(net(), example=X, sched=Schedule.cosine(5)), "sched: 12 layers need as many steps, it has 5"),
    "time 0": (lambda: denoise_rep(net(), t=0), r"t: times run 1\.\.1000"),
    "times of other layers": (lambda: denoise_rep(net(), ["stem"], t={"stam": 3}), "t: needs a time for each of 'stem'"),
    "mode unknown": (lambda: denoise_rep(net(), example=X, mode="paper"), "mode: one of"),
    "loss unknown": (lambda: denoise_rep(net(), example=X, loss="l3"), "loss: one of"),
    "init unknown": (lambda: denoise_rep(net(), example=X, init="one"), "init: one of"),
    "nothing recorded": (lambda: denoise_rep(net(), example=X).loss(), "loss: nothing was recorded"),
    "batch norm in training": (lambda: denoise_rep(net().train(), example=X).recording().__enter__(), "model: batch norms in training mode .'norm'"),
    "fuse without a batch": (lambda: denoise_rep(net(), t=3).fuse(), "check: a batch is needed"),
    "matrix of another size": (lambda: fuse_linear(torch.zeros(3, 4), None, torch.eye(3)), r"A: shape \(4, 4\)"),
    "place unknown": (lambda: fuse_linear(torch.zeros(3, 4), None, torch.eye(4), place="in"), "place: one of"),
    "kernel in the denoiser": (lambda: fuse_conv(torch.zeros(3, 4, 3, 3), None, torch.zeros(4, 4, 3, 3)), "only a pointwise denoiser"),
    "groups mixed": (lambda: fuse_conv(torch.zeros(4, 2, 3, 3), None, torch.ones(4, 4), groups=2), "mixes the 2 groups"),
    "oblong denoiser": (lambda: step_affine(DDPM, 3, torch.zeros(3, 4)), "W_D: a square matrix"),
    "empty chain": (lambda: compose(), "maps: at least one"),
    "shared closed form": (lambda: DenoiseRepMinus(4, DDPM, 3, shared=True).solve(E), "shared: one denoiser"),
    "too many steps": (lambda: DenoiseRepMinus(4, DDPM, 1001), "times run"),
    "head without bias": (lambda: DenoiseRepMinus(4, DDPM, 3).fuse_into(nn.Linear(4, 2, bias=False)), "head: has no bias"),
    "recipe unknown": (lambda: DenoiseRepCB(None, "both"), "recipe: one of"),
    "lambda 2": (lambda: DenoiseRepCB(None, lam=2), r"lam: a weight in \[0,1\]"),
    "phase 0": (lambda: DenoiseRepCB(None, phase=0), "phase: needs at least 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message): call()


def test_all_reports_what_it_leaves_out():
    m = seq(nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(2, 2, 3), nn.Conv2d(2, 2, 1))
    report = denoise_rep(m, example=X).report().set_index("layer")
    assert report.loc["1"].note.startswith("refused: a transposed convolution") and report.t[:2].tolist() == [2, 1]
