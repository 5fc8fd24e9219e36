"""The split model: who hears what, who moves in a step, what perfect networks would do, and what
is refused."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from scipy.stats import norm
from torch import nn

from helpers import openai_state, run_script
from denoise_study.daed import DAED, DAETime, Split, split
from denoise_study.core import averaged, build, denoise_learner, describe, image_dls, image_noise
from denoise_study.core import load_checkpoint, read_tensors, save_checkpoint, step_generator
from denoise_study.diffusion import ancestral, chain_variance, DDGM, from_openai, GaussianNet
from denoise_study.diffusion import Schedule, UNet, UniformTime

LONG = Schedule.linear(1000)
SHORT = LONG.merge_first(98)


class Spy(nn.Module):
    "A network that records the labels it is told; its answer depends on one weight"

    def __init__(self, name, log, out=1, weight=0.3):
        super().__init__()
        self.name, self.log, self.out, self.scale = (
            name,
            log,
            out,
            nn.Parameter(torch.tensor(weight)),
        )

    def forward(self, x, label):
        self.log.append((self.name, label.tolist()))
        return (torch.tanh(x) * self.scale).repeat(1, self.out, 1, 1)

    def __deepcopy__(self, memo):
        return Spy(self.name, self.log, self.out, self.scale.item())


class Exact(GaussianNet):
    """The optimal network with the true variance of the step back, V_{t-1} beta_t/V_t, as the
    interpolation weight that a learned variance has"""

    def forward(self, xt, label):
        t, s = int(label[0]) + 1, self.sched
        V = s.alpha_bar * self.s2 + 1 - s.alpha_bar
        low, high = s.post_log_var[t], s.log_beta[t]
        f = ((V[t - 1] * s.beta[t] / V[t]).log() - low) / (high - low)
        return torch.cat([super().forward(xt, label), torch.full_like(xt, float(2 * f - 1))], 1)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def close(a, b, rtol=0.0, atol=0.0):
    torch.testing.assert_close(
        torch.as_tensor(a).double(), torch.as_tensor(b).double(), rtol=rtol, atol=atol
    )


def small(**kw):
    return UNet(**dict(dict(channels=1, width=16, mult=(1,), n_blocks=1, attn=()), **kw))


def pair(T=30, n=5, **kw):
    return DAED(small(), small(), Schedule.linear(T).merge_first(n), shape=(1, 8, 8), **kw)


def spies(T=30, n=5, out=1, **kw):
    log = []
    return DAED(
        Spy("net", log, out),
        Spy("dae", log),
        Schedule.linear(T).merge_first(n),
        shape=(1, 4, 4),
        **kw,
    ), log


def perfect(s2, n=1, sched=SHORT, **kw):
    return DAED(GaussianNet(LONG, s2), GaussianNet(LONG, s2), sched, shape=(1, n, n), **kw)


def bytes_(n=64, side=4, seed=0):
    return torch.randint(0, 256, (n, 1, side, side), generator=gen(seed)) / 127.5 - 1


def state(m):
    return {k: v.clone() for k, v in m.state_dict().items()}


def moved(m, before):
    return {k.split(".")[0] for k, v in m.state_dict().items() if not torch.equal(v, before[k])}


def test_tail_is_exact():
    "Alpha_bar'_k = alpha_bar_{n+k-1}, in the table and from its own betas"
    m = DAED.from_ddgm(DDGM(small(), LONG, (1, 8, 8)), 98, small())
    close(m.sched.alpha_bar[1:], LONG.alpha_bar[98:], rtol=1e-12)
    close((1 - m.sched.beta[1:]).cumprod(0), LONG.alpha_bar[98:], rtol=1e-12)
    assert m.n == 98 and m.sched.T == 903 and m.sched.steps[1:].tolist() == list(range(98, 1001))


# Who is called


def test_sampling_calls_each_network_as_often_as_it_should():
    """T'-1 generator calls with the original labels, never that of x_1 or of the clean end, then
    one DAE call"""
    m, log = spies()
    m.sample(2, progress=False)
    assert (
        log == [("net", [t - 1.0] * 2) for t in range(30, 5, -1)] + [("dae", [4.0] * 2)]
        and len(log) == m.sched.T == 26
    )
    log.clear()
    m.sample(2, steps=6, progress=False)  # a shorter walk still ends at the same x_1
    assert (
        [name for name, _ in log] == ["net"] * 5 + ["dae"]
        and log[-1] == ("dae", [4.0] * 2)
        and log[0] == ("net", [29.0] * 2)
    )
    log.clear()
    m.reconstruct(torch.zeros(1, 1, 4, 4), 1)
    m.denoise(torch.zeros(1, 1, 4, 4))
    assert log == [("dae", [4.0])] * 2


@pytest.mark.parametrize(
    "kw",
    [
        dict(),
        dict(var="learned", out=2),
        dict(dae_pred="x0"),
        dict(pred="v", dae_pred="x0"),
        dict(pred="x0"),
    ],
)
def test_each_image_passes_one_network(kw):
    "A mixed batch equals the same images one by one, each with a number for its time"
    out = kw.get("out", 1)
    m, log = spies(**kw)
    with torch.no_grad():
        m.dae.scale.fill_(0.7)
    x, t = torch.randn(7, 1, 4, 4, generator=gen()), torch.tensor([3, 1, 26, 2, 1, 1, 9])
    pred, v = m.predict(x, t)
    assert log == [("dae", [4.0] * 3), ("net", [6.0, 29.0, 5.0, 12.0])]
    assert (v is None) == (out == 1)
    for i in range(7):
        one, v_one = m.predict(x[i : i + 1], int(t[i]))
        close(pred[i], one[0], atol=1e-6)
        if v_one is not None:
            close(v[i], v_one[0], atol=1e-6)
        mean, log_var, _ = m.p_mean_var(x, t, clip=False)
        mean_one, log_var_one, _ = m.p_mean_var(x[i : i + 1], int(t[i]), clip=False)
        close(mean[i], mean_one[0], atol=1e-5)
        close(
            log_var.expand(7, 1, 4, 4)[i],
            torch.as_tensor(log_var_one).expand(1, 1, 4, 4)[0],
            atol=1e-5,
        )
    for same in (torch.ones(3, dtype=torch.int64), torch.full((3,), 5)):
        log.clear()
        m.predict(x[:3], same)
        assert len(log) == 1


def test_two_step_walk_is_the_diffusion_model_until_the_split():
    "The state that the DAE is given is bit for bit the model's x_n, not x_{n-1} and not x_0"
    ddgm, log = DDGM(Spy("net", [], weight=0.2), Schedule.linear(60), shape=(1, 4, 4)), []
    m = DAED.from_ddgm(ddgm, 12, Spy("dae", log))
    x_T = torch.randn(2, 1, 4, 4, generator=gen())
    with torch.no_grad():
        there = {t: x for t, x, _ in ancestral(ddgm, x_T, gen(1))}
        here = {t: x for t, x, _ in ancestral(m, x_T, gen(1))}
    assert (
        torch.equal(here[1], there[12])
        and torch.equal(here[5], there[16])
        and log == [("dae", [11.0] * 2)]
    )
    close(here[0], m.denoise(there[12]))


# Perfect networks


def test_generator_stops_at_x1():
    """With exact steps the generator ends at the variance .32445 of x_98; denoised to the end it
    would be .2499. The DAE turns it into .17351: smoothing"""
    m = DAED(Exact(LONG, 0.25), GaussianNet(LONG, 0.25), SHORT, (1, 1, 1), var="learned")
    x1 = chain_variance(m, 903, 1, 1.0)
    close(x1, 0.32445, atol=1e-5)
    close(chain_variance(m, 1, 0, x1), 0.17351, atol=1e-5)
    full = DDGM(Exact(LONG, 0.25), LONG, (1, 1, 1), var="learned")
    close(chain_variance(full, 1000, 98, 1.0), 0.32445, atol=1e-5)
    close(chain_variance(full, 1000, 0, 1.0), 0.24990, atol=1e-5)
    close(0.17351 + 0.076491, 0.25, atol=1e-5)  # the lost variance is the mean square error


@pytest.mark.parametrize(
    "var,s2,x1",
    [
        ("large", 1.0, 1.0),
        ("small", 1.0, 0.99431),
        ("large", 0.25, 0.32560),
        ("small", 0.25, 0.32279),
    ],
)
def test_chain_variance(var, s2, x1):
    """Unit data, the optimal network and the large variance give var(x_1) = 1 for any split; and
    the split chain is the unsplit one down to x_1"""
    m = perfect(s2, var=var)
    got = chain_variance(m, 903, 1, 1.0)
    close(got, x1, atol=1e-5)
    close(
        got,
        chain_variance(DDGM(GaussianNet(LONG, s2), LONG, (1, 1, 1), var=var), 1000, 98, 1.0),
        atol=1e-9,
    )
    ab = LONG.alpha_bar[98]
    close(
        chain_variance(m, 1, 0, got), float(s2**2 * ab / (ab * s2 + 1 - ab) ** 2) * got, rtol=1e-5
    )


@pytest.mark.parametrize("n", [2, 98, 400, 900])
def test_unit_data_keep_unit_variance_at_any_split(n):
    close(chain_variance(perfect(1.0, sched=LONG.merge_first(n)), 1001 - n, 1, 1.0), 1.0, atol=1e-6)


def test_sampled_variance():
    "The sampler itself: 60 x 64 x 64 pixels on a chain of 25 steps"
    s = Schedule.linear(100).merge_first(10).respace(25)
    m = DAED(
        GaussianNet(Schedule.linear(100), 0.25),
        GaussianNet(Schedule.linear(100), 0.25),
        s,
        (1, 64, 64),
        range=(-9.0, 9.0),
    )
    x = m.sample(60, bs=60, clip=False, progress=False)
    close(x.var(), chain_variance(m, 25, 0, 1.0), rtol=0.01)


def test_sample_to_mean_ratio():
    """98 ancestral steps have 1.9987 times the square error of the DAE, for perfect networks
    (.15288 exact, .15312 large, .15000 small)"""
    ab, s2 = float(LONG.alpha_bar[98]), 0.25
    mmse = {}
    for name, net, var in (
        ("exact", Exact, "learned"),
        ("large", GaussianNet, "large"),
        ("small", GaussianNet, "small"),
    ):
        m = DDGM(net(LONG, s2), LONG, (1, 1, 1), var=var)
        signal = ab**0.5
        for t in range(98, 0, -1):
            signal *= m.p_mean_var(torch.ones(1, 1, 1, 1), t, clip=False)[0].item()
        mmse[name] = (1 - signal) ** 2 * s2 + chain_variance(m, 98, 0, 1 - ab)
    close(list(mmse.values()), [0.15288, 0.15312, 0.15000], atol=1e-5)
    close(mmse["exact"] / 0.076491, 1.9987, atol=2e-4)
    x0 = 0.5 * torch.randn(40, 1, 64, 64, generator=gen(9))
    m = perfect(s2, 64, range=(-9.0, 9.0))
    close((m.reconstruct(x0, 1) - x0).pow(2).mean(), 0.076491, rtol=0.01)


# Losses


def test_untrained_dae():
    "Eps-loss 1.0, x0_hat = x_1/sqrt(alpha_bar_1), MAE .2660 at the level .1, whatever the data"
    m = DAED(small(), small(), Schedule.linear_combine(468, 0.1), (1, 8, 8))
    x0 = bytes_(1200, 8)
    eps = torch.randn(x0.shape, generator=gen(1))
    x1 = m.sched.q_sample(x0, 1, eps)
    close(x1, 0.9**0.5 * x0 + 0.1**0.5 * eps, atol=1e-6)
    with torch.no_grad():
        close(m(x0, torch.ones(len(x0), dtype=torch.int64), eps).mean(), 1.0, atol=0.01)
    x0_hat = m.denoise(x1, clip=False)
    close(x0_hat, x1 / 0.9**0.5, atol=1e-6)
    close((x0_hat - x0).abs().mean(), 0.2660, atol=0.001)
    assert m.denoise(x1).abs().max() <= 1


class X0(nn.Module):
    "The clean image implied by a noise prediction of `net`"

    def __init__(self, net, sched):
        super().__init__()
        self.net, self.sched = net, sched

    def forward(self, x, label):
        return self.sched.to_x0(self.net(x, label), x, 1)


@pytest.mark.parametrize("loss", ["simple", "vlb"])
def test_target_of_the_dae_does_not_change_the_loss(loss):
    sched, spy = Schedule.linear(200).merge_first(20), Spy("dae", [])
    by_eps = DAED(Spy("net", []), spy, sched, (1, 4, 4), loss=loss)
    by_x0 = DAED(by_eps.net, X0(spy, sched), sched, (1, 4, 4), loss=loss, dae_pred="x0")
    x0, t = bytes_(6), torch.tensor([1, 1, 1, 50, 1, 2])
    eps = torch.randn(x0.shape, generator=gen(2))
    close(by_eps(x0, t, eps), by_x0(x0, t, eps), rtol=1e-4)
    x0_hat = by_eps.denoise(sched.q_sample(x0, 1, eps), clip=False)
    scaled = sched.snr()[1] * (x0_hat - x0).pow(2).mean(
        (1, 2, 3)
    )  # the eps-error is alpha_bar/(1-alpha_bar) times the x0-error
    if loss == "simple":
        close(by_x0(x0, torch.ones(6, dtype=torch.int64), eps), scaled, rtol=1e-4)


@pytest.mark.parametrize("sampler", ["dae", "uniform", "dae_only"])
def test_vlb_loss_is_an_unbiased_estimate(sampler):
    """The weighted loss is on average the sum of the divergences in bits/dim and of the DAE's
    1/2 mse in bits"""
    s = Schedule.linear(40)
    m = DAED(
        GaussianNet(s, 0.3),
        GaussianNet(s, 0.3),
        s.merge_first(6),
        (1, 8, 8),
        loss="vlb",
        var="small",
        sampler=sampler,
    )
    x0 = bytes_(300, 8)
    truth = sum(0.5 * m.dae_nll(x0, seed=i, clip=False)["mse"] / math.log(2) for i in range(5)) / 5
    if sampler != "dae_only":
        truth = (
            truth
            + sum(
                m.bits_per_dim(x0, seed=i, clip=False, progress=False)["L_t"].sum(1)
                for i in range(5)
            )
            / 5
        )
    g, losses = gen(5), []
    for _ in range(400):
        w, *rand = m.draw(x0.shape, g)
        losses.append((w * m(x0, *rand)).double())
    losses = torch.cat(losses)
    error = math.hypot(*(float(v.std()) / len(v) ** 0.5 for v in (losses, truth)))
    assert abs(float(losses.mean() - truth.mean())) < 4 * error < 0.03 * float(truth.mean())


def test_units_of_the_dae_term():
    """Eq. 9 is 1/2 mse + 1/2 ln 2 pi nats per dimension, 1.4427 times as many bits; the loss
    leaves the constant out"""
    m = perfect(0.3, 8, loss="vlb", sampler="dae_only")
    x0 = bytes_(20, 8)
    r = m.dae_nll(x0, seed=3, clip=False)
    close(r["nats"], 0.5 * r["mse"] + 0.918939, atol=1e-6)
    close(r["bits"] / r["nats"], [1.442695] * 20, atol=1e-6)
    eps = image_noise(x0, 3)
    close(m(x0, torch.ones(20, dtype=torch.int64), eps), r["bits"] - 1.325748, atol=1e-5)
    x0_hat = m.denoise(m.sched.q_sample(x0, 1, eps), clip=False)
    close(r["mse"], (x0_hat - x0).pow(2).mean((1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("dae_var", [None, 0.02])
@pytest.mark.parametrize("kw", [dict(var="large"), dict(var="small"), dict(var="learned", out=2)])
def test_exact_likelihood(dae_var, kw):
    """A Gaussian of variance beta_1 (or dae_var) over each grey level, by scipy; in
    bits_per_dim, in a batch of times, and in dae_nll"""
    m, _ = spies(dae_var=dae_var, **kw)
    x0 = bytes_(50)
    x = x0.double().numpy()
    std = math.sqrt(dae_var or float(m.sched.beta[1]))

    def by_scipy(x1):
        f = m.denoise(x1).double().numpy()
        lower = np.where(x < -0.999, -np.inf, (x - 1 / 255 - f) / std)
        upper = np.where(x > 0.999, np.inf, (x + 1 / 255 - f) / std)
        below = norm.cdf(upper) - norm.cdf(lower)
        above = norm.sf(lower) - norm.sf(upper)
        # each tail where it is exact
        return -np.log2(np.where(lower + upper < 0, below, above)).mean((1, 2, 3))

    x1 = m.sched.q_sample(x0, 1, image_noise(x0, 7))
    theirs = by_scipy(x1)
    close(m.dae_nll(x0, seed=7)["exact"], theirs, rtol=1e-4)
    t = torch.ones(50, dtype=torch.int64)
    with torch.no_grad():
        close(m.vlb_terms(x0, x1, t, *m.predict(x1, t), clip=True), theirs, rtol=1e-4)
    other = m.sched.q_sample(x0, 1, image_noise(x0, 7, stream="likelihood"))
    L_0 = m.bits_per_dim(x0, seed=7, progress=False)["L_0"]
    close(L_0, by_scipy(other), rtol=1e-4)


def test_fitted_variance():
    "The fit is a maximum; for pixels away from the ends it is the mean square error"
    m = perfect(0.02, 8)
    x0 = (
        (bytes_(400, 8) * 0.25 * 127.5 + 127.5)
        .round()
        .sub(127.5)
        .div(127.5)
        .mul(255)
        .add(255)
        .div(2)
        .round()
        .mul(2)
        .sub(255)
        .div(255)
    )  # grid, |x| < .26
    v = m.fit_dae_var(x0)
    close(v, m.dae_nll(x0)["mse"].mean(), rtol=0.02)
    best = m.dae_nll(x0)["exact"].mean()
    for factor in (0.8, 1.25):
        m.dae_var = v * factor
        assert m.dae_nll(x0)["exact"].mean() > best + 0.001


def test_learned_variance_of_the_generator():
    """v = -1 the posterior's, +1 beta, for the generator's steps; at t=1 the DAE's own; and the
    DAE's term moves nothing of the generator"""
    m, _ = spies(var="learned", out=2)
    x, t = torch.zeros(4, 1, 4, 4), torch.tensor([1, 2, 10, 26])
    low, high = (m.log_var(torch.full_like(x, v), t, x)[:, 0, 0, 0] for v in (-1.0, 1.0))
    close(low[1:], m.sched.post_var[t[1:]].log(), rtol=1e-6)
    close(high[1:], m.sched.beta[t[1:]].log(), rtol=1e-6)
    close([low[0], high[0], m.log_var(None, 1, x)], m.sched.beta[1].log().repeat(3), rtol=1e-6)
    vlb = DAED(small(learn_sigma=True), small(), m.sched, (1, 8, 8), loss="vlb", var="learned")
    for p in vlb.parameters():
        nn.init.normal_(p, std=0.05)
    x0 = bytes_(6, 8)
    vlb(x0, torch.tensor([1, 1, 1, 5, 9, 26]), torch.randn(x0.shape, generator=gen()))[
        :3
    ].sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in vlb.net.parameters()) and any(
        p.grad.any() for p in vlb.dae.parameters()
    )


# Times


@pytest.mark.parametrize(
    "T,beta_1,p",
    [
        (468, 0.1, 0.09109),
        (900, 0.1, 0.0910),
        (500, 0.001, 1 / 500),
        (1000, 1e-3, 1 / 1000),
        (1, 1.0, 1.0),
    ],
)
def test_dae_time(T, beta_1, p):
    """p_1 = .09109 for T'=468 and beta_1=.1; sum p_t w_t = 1; the weighted mean of any loss is
    its plain mean"""
    s = DAETime(T, beta_1)
    close(s.p[0], p, atol=1e-5)
    close(s.p.sum(), 1.0, atol=1e-12)
    t, w = s.sample(200_000, gen())
    assert t.dtype == torch.int64 and w.dtype == torch.float32 and t.min() == 1 and t.max() == T
    close((s.p / (T * s.p)).sum(), 1.0, atol=1e-12)
    close(w, 1 / (T * s.p[t - 1]), rtol=1e-6)
    close((t == 1).double().mean(), p, atol=0.003)
    loss = 3 / torch.arange(1, T + 1) + 0.1
    close([w.mean(), (w * loss[t - 1]).mean()], [1.0, loss.mean()], rtol=0.03)


def test_weights_of_the_paper_runs():
    for T, first, rest in ((468, 0.02346, 1.0979), (900, 0.01221, 1.0989)):
        p = DAETime(T, 0.1).p
        close([1 / (T * p[0]), 1 / (T * p[1])], [first, rest], atol=2e-5 + 1e-4)


def test_dae_only_is_always_step_one():
    m = pair(sampler="dae_only")
    w, t, eps = m.draw((50, 1, 8, 8), gen())
    assert (
        (t == 1).all() and (w == 1).all() and not any(p.requires_grad for p in m.net.parameters())
    )


# Who moves


def test_an_idle_part_does_not_move():
    """No step on t >= 2 moves the DAE, no step on t = 1 the generator, although Adam has
    momentum for both"""
    m = pair()
    for p in m.parameters():
        nn.init.normal_(p, std=0.05)
    opt = torch.optim.AdamW(m.parameters(), lr=1e-3, weight_decay=0.1, fused=True)
    x0 = bytes_(4, 8)
    for ts, who in (
        ((1, 1, 2, 9), {"net", "dae"}),
        ((2, 7, 8, 26), {"net"}),
        ((1, 1, 1, 1), {"dae"}),
        ((3, 3, 3, 3), {"net"}),
    ):
        before = state(m)
        m(x0, torch.tensor(ts), torch.randn(x0.shape, generator=gen(len(ts)))).mean().backward()
        opt.step()
        opt.zero_grad()
        assert moved(m, before) == who, ts


class Watch(Callback):
    "Which parts each training step moves, and which times it had"

    order = 98

    def before_batch(self):
        if self.training:
            self.before, self.t = state(self.learn.model), None

    def after_pred(self):
        if self.training:
            self.t = self.xb[1].clone()

    def after_batch(self):
        if self.training:
            seen.append((set(self.t.tolist()), moved(self.learn.model, self.before)))


def quiet_fit(learn, n=2, lr=1e-3):
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(n, lr)
    return learn


@pytest.mark.parametrize("kw", [dict(ema=0.9, clip=1.0), dict(ema=None), dict(ema=0.9, bf16=True)])
def test_an_idle_part_does_not_move_in_a_learner(kw):
    """Through fastai's optimiser wrapper, zero_grad, clipping, the average and bfloat16: the DAE
    moves exactly in the steps that have a t = 1"""
    global seen
    seen = []
    torch.manual_seed(0)
    learn = denoise_learner(
        image_dls("digits", bs=16, valid=16, test=0.85, device="cpu"),
        pair(60, 10, sampler="uniform"),
        cbs=Watch(),
        **kw,
    )
    quiet_fit(learn, 3)
    assert all(who == ({"net", "dae"} if 1 in ts else {"net"}) for ts, who in seen)
    worked = [1 in ts for ts, _ in seen]
    assert any(worked) and not all(
        worked[worked.index(True) :]
    )  # an idle step after the DAE has momentum


def test_two_step_training_moves_the_dae_alone():
    torch.manual_seed(0)
    ddgm = DDGM(small(), Schedule.linear(60), (1, 8, 8))
    before, m = state(ddgm.net), DAED.from_ddgm(ddgm, 0.1, small())
    dae = state(m.dae)
    learn = quiet_fit(denoise_learner(image_dls("digits", bs=128, device="cpu"), m, ema=0.9), 1)
    for net in (m.net, averaged(learn).net, ddgm.net):
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert (
        moved(m.dae, dae)
        and m.net is not ddgm.net
        and all(p.requires_grad for p in ddgm.net.parameters())
    )
    assert sum(len(g["params"]) for g in learn.opt.param_groups) == len(list(m.dae.parameters()))
    assert len(averaged(learn).sample(2, steps=5, progress=False)) == 2


class PowerCut(Callback):
    order = 99

    def after_batch(self):
        if self.training and self.train_iter == 13:
            raise KeyboardInterrupt


def test_cut_and_resumed_is_bit_identical(tmp_path):
    """A run that stops between two saves, in the second epoch; the DAE is idle in many steps, so
    its optimiser state is younger than the generator's"""

    def run(folder, seed, cbs=None):
        torch.manual_seed(seed)
        model = DAED(
            small(dropout=0.2),
            small(dropout=0.2),
            Schedule.linear(200).merge_first(40),
            (1, 8, 8),
            sampler="uniform",
        )
        learn = denoise_learner(
            image_dls("digits", bs=32, valid=32, test=0.8, device="cpu"),
            model,
            ema=0.9,
            folder=tmp_path / folder,
            cbs=cbs,
        )
        learn.resume.steps = 5
        return quiet_fit(learn, 2)

    torch.manual_seed(0)
    whole = run("whole", 0)
    with pytest.raises(KeyboardInterrupt):
        run("cut", 0, PowerCut())
    again = run("cut", 1)
    for a, b in ((whole.model, again.model), (whole.ema_model, again.ema_model)):
        assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    assert [float(v) for v in whole.recorder.losses] == [
        float(v) for v in again.recorder.losses
    ] and len(whole.recorder.losses) > 13
    steps = {int(s["step"]) for s in whole.opt.state_dict()["state"].values()}
    assert len(steps) == 2  # each part has its own number of steps


def test_two_processes_equal_one(tmp_path):
    """Two gloo processes on half batches against one on the whole. In most steps no process has
    work for the DAE, in others only one has"""
    run_script("run_training", tmp_path / "two", "--dropout", 0, "--daed", processes=2)
    run_script("run_training", tmp_path / "one", "--dropout", 0, "--daed")
    (one, done), (two, dtwo) = (
        read_tensors(tmp_path / f"{n}/model.safetensors") for n in ("one", "two")
    )
    assert (done["info"]["processes"], dtwo["info"]["processes"]) == (1, 2)
    close(done["info"]["losses"], dtwo["info"]["losses"], rtol=1e-4, atol=1e-5)
    # Adam blows up the order of sums where a gradient is nearly 0: single biases of the generator
    # differ by 5e-5. With stale momentum
    # the DAE, which rests most of the time, would be off by 6e-3
    for k in one:
        torch.testing.assert_close(
            one[k],
            two[k],
            rtol=1e-3,
            atol=2e-5 if ".dae." in k else 2e-4,
            msg=lambda m, k=k: f"{k}: {m}",
        )
    work = [
        torch.stack([(t == 1)[:32].any(), (t == 1)[32:].any()])
        for t in (UniformTime(161).sample(64, step_generator(3, i))[0] for i in range(21))
    ]
    assert {int(w.sum()) for w in work} >= {0, 1}  # both cases were there
    first = [bool(w.any()) for w in work].index(True)
    assert sum(not w.any() for w in work[first:]) > 3  # idle with momentum


# Two steps


def openai_ddgm(seed=0):
    net = from_openai(openai_state(32, (1, 2), 1, (2,), channels=3, out=6, seed=seed), heads=4)
    return DDGM(
        net,
        Schedule.cosine(4000),
        (3, 16, 16),
        loss="hybrid",
        var="learned",
        time_scale=1000 / 4000,
    )


def test_openai_checkpoint_becomes_a_generator():
    """Cosine 4000 at .1 cuts 794 steps; the network hears a quarter of its original times, on a
    respaced chain too"""
    m = DAED.from_ddgm(openai_ddgm(), 0.1, small(channels=3, mult=(1, 2)))
    assert (m.n, m.sched.T, m.var, m.time_scale, m.loss, m.sampler_name) == (
        794,
        3207,
        "learned",
        0.25,
        "simple",
        "dae_only",
    )
    heard = []
    for name in ("net", "dae"):
        getattr(m, name).register_forward_pre_hook(
            lambda _, a, name=name: heard.append((name, a[1].tolist()))
        )
    out = m.sample(2, steps=4, progress=False)
    assert out.shape == (2, 3, 16, 16) and torch.isfinite(out).all()
    assert heard == [("net", [t * 0.25] * 2) for t in (3999, 2930, 1862)] + [
        ("dae", [793 * 0.25] * 2)
    ]
    x0 = torch.randint(0, 256, (2, 3, 16, 16), generator=gen()) / 127.5 - 1
    heard.clear()
    assert (m.reconstruct(x0, 1) - x0).abs().mean() < 0.28 and heard == [
        ("dae", [793 * 0.25] * 2)
    ]  # fresh DAE: the raw .2660
    w, *rand = m.draw(x0.shape, gen())
    m(x0, *rand).mean().backward()
    assert all(p.grad is None for p in m.net.parameters())


@pytest.mark.parametrize("n", [1, 2, 30, 59, 60])
def test_any_split(n):
    m = DAED.from_ddgm(DDGM(small(), Schedule.linear(60), (1, 8, 8)), n, small())
    assert (m.n, m.sched.T) == (n, 61 - n) and m.sample(1, progress=False).shape == (1, 1, 8, 8)
    joint = DAED(small(), small(), Schedule.linear(60).merge_first(n), (1, 8, 8))
    w, *rand = joint.draw((8, 1, 8, 8), gen())
    assert torch.isfinite(joint(bytes_(8, 8), *rand)).all()


def test_split_objects_levels_and_counts_agree():
    ddgm = DDGM(small(), LONG, (1, 8, 8))
    made = [
        DAED.from_ddgm(ddgm, at, small())
        for at in (98, 0.1, split(LONG, level=0.1), split(LONG, level=0.1, power=0.256))
    ]
    assert {m.n for m in made} == {98} and all(m.sched == SHORT for m in made)


def test_a_trained_dae_can_be_taken_over():
    ddgm = DDGM(small(), LONG, (1, 8, 8))
    first = DAED.from_ddgm(ddgm, 98, small(), dae_pred="x0")
    joint = DAED.from_ddgm(DDGM(small(), LONG, (1, 8, 8)), 98, first)
    assert joint.dae is first.dae and joint.dae_pred == "x0"


def test_two_steps_and_then_jointly():
    m = DAED.from_ddgm(DDGM(small(), Schedule.linear(30), (1, 8, 8)), 5, small())
    m.net.requires_grad_(True)
    m = DAED(**dict(m.config, sampler="dae"))
    for p in m.parameters():
        nn.init.normal_(p, std=0.05)
    m(
        bytes_(4, 8), torch.tensor([1, 2, 1, 9]), torch.randn(4, 1, 8, 8, generator=gen())
    ).mean().backward()
    assert all(p.grad is not None for p in m.parameters())


def test_paper_schedule():
    "linear_combine counts its own steps: the DAE hears 0 as in the reference, the generator 1..467"
    log = []
    m = DAED(Spy("net", log), Spy("dae", log), Schedule.linear_combine(468, 0.1), (1, 4, 4))
    m.sample(1, progress=False)
    assert log == [("net", [float(t)]) for t in range(467, 0, -1)] + [("dae", [0.0])] and m.n == 1


# Files, size, precision


def test_checkpoint_rebuilds_the_pair(tmp_path):
    m = pair(
        loss="vlb",
        var="small",
        pred="v",
        dae_pred="x0",
        dae_var=0.03,
        sampler="dae_only",
        time_scale=0.5,
    )
    for p in m.parameters():
        nn.init.normal_(p, std=0.05)
    save_checkpoint(tmp_path / "m.safetensors", m, copy.deepcopy(m))
    again = load_checkpoint(tmp_path / "m.safetensors")
    assert (
        isinstance(again, DAED)
        and describe(again) == describe(m)
        and again.dae_var == 0.03
        and again.sched == m.sched
    )
    assert not any(p.requires_grad for p in again.net.parameters()) and all(
        p.requires_grad for p in again.dae.parameters()
    )
    assert torch.equal(again.sample(2, progress=False), m.sample(2, progress=False))
    assert describe(build(json.loads(json.dumps(describe(m))))) == describe(m)
    with pytest.raises(ValueError, match="dae_pred"):
        load_checkpoint(
            tmp_path / "m.safetensors",
            model=pair(
                loss="vlb", var="small", pred="v", sampler="dae_only", time_scale=0.5, dae_var=0.03
            ),
        )


def test_seeds_decide():
    torch.manual_seed(0)
    m = DAED(
        small(dropout=0.5), small(dropout=0.5), Schedule.linear(50).merge_first(10), (1, 8, 8)
    ).train()
    for p in m.parameters():
        nn.init.normal_(p, std=0.05)
    a, b, c = (m.sample(3, seed=s, steps=6, progress=False) for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c) and m.training
    x1 = torch.randn(3, 1, 8, 8, generator=gen())
    assert torch.equal(m.denoise(x1), m.denoise(x1)) and m.training


def test_clean_under_autocast():
    for loss in ("simple", "vlb"):
        m, x0 = pair(loss=loss, dae_pred="x0"), bytes_(4, 8)
        with torch.autocast("cpu", torch.bfloat16):
            out = m(x0, torch.arange(1, 5), torch.randn(x0.shape, generator=gen()))
        assert out.dtype == torch.float32 and out.shape == (4,) and torch.isfinite(out).all()


# Refusals

net, dae, s30 = small(), small(), Schedule.linear(30)
short = s30.merge_first(5)
x = torch.zeros(2, 1, 8, 8)
ddgm = DDGM(net, s30, (1, 8, 8))
model = DAED(net, dae, short, (1, 8, 8))


def other(sched=s30, n=5, shape=(1, 8, 8), **kw):
    return DAED(
        small(channels=shape[0]), small(channels=shape[0]), sched.merge_first(n), shape, **kw
    )


CALLS = {
    "loss hybrid": (lambda: DAED(net, dae, short, (1, 8, 8), loss="hybrid"), "loss: one of"),
    "variance unknown": (lambda: DAED(net, dae, short, (1, 8, 8), var="big"), "var: one of"),
    "target unknown": (
        lambda: DAED(net, dae, short, (1, 8, 8), dae_pred="v"),
        r"dae_pred: one of \('eps', 'x0'\)",
    ),
    "sampler unknown": (
        lambda: DAED(net, dae, short, (1, 8, 8), sampler="loss_second_moment"),
        "sampler: one of",
    ),
    "grey generator on colour": (
        lambda: DAED(net, small(channels=3), short, (3, 8, 8)),
        "net: made for 1 channels",
    ),
    "grey DAE on colour": (
        lambda: DAED(small(channels=3), dae, short, (3, 8, 8)),
        "dae: made for 1 channels",
    ),
    "DAE with a variance head": (
        lambda: DAED(net, small(learn_sigma=True), short, (1, 8, 8)),
        "dae: has a variance head",
    ),
    "foreign DAE with two outputs": (
        lambda: DAED(net, Spy("dae", [], 2), short, (1, 8, 8)).denoise(x),
        r"dae: returned \(2, 2, 8, 8\)",
    ),
    "shared weights": (lambda: DAED(net, net, short, (1, 8, 8)), "dae: shares weights"),
    "partly shared weights": (lambda: shared(), "dae: shares weights"),
    "variance 0": (
        lambda: DAED(net, dae, short, (1, 8, 8), dae_var=0.0),
        "dae_var: a variance above 0",
    ),
    "DAED from 0 steps": (lambda: DAED.from_ddgm(ddgm, 0, dae), r"n: .*1\.\.30"),
    "DAED from too many steps": (lambda: DAED.from_ddgm(ddgm, 31, dae), r"n: .*1\.\.30"),
    "DAED at level 1.5": (lambda: DAED.from_ddgm(ddgm, 1.5, dae), "level"),
    "split of a longer chain": (
        lambda: DAED.from_ddgm(ddgm, split(Schedule.linear(60), n=5), dae),
        "at: .*another schedule",
    ),
    "split of another start": (
        lambda: DAED.from_ddgm(ddgm, split(Schedule.linear(30, start=1e-3), n=5), dae),
        "at: .*another schedule",
    ),
    "a split made by hand": (
        lambda: DAED.from_ddgm(ddgm, Split(40, 30, -9, -10, 0.2, 1.0), dae),
        r"n: .*1\.\.30",
    ),
    "split of a split": (
        lambda: DAED.from_ddgm(model, 3, small()),
        "ddgm: a DDGM that is not split yet",
    ),
    "network instead of a model": (lambda: DAED.from_ddgm(net, 3, dae), "ddgm: .*got a UNet"),
    "DAE of another range": (
        lambda: DAED.from_ddgm(ddgm, 5, other(range=(0.0, 1.0))),
        "dae: trained with range",
    ),
    "DAE of another shape": (
        lambda: DAED.from_ddgm(ddgm, 5, other(shape=(3, 8, 8))),
        "dae: trained with shape",
    ),
    "DAE of another split": (lambda: DAED.from_ddgm(ddgm, 5, other(n=6)), "dae: trained with n 6"),
    "DAE of another schedule": (
        lambda: DAED.from_ddgm(ddgm, 5, other(Schedule.linear(30, start=1e-3))),
        "dae: trained with 1-alpha_bar",
    ),
    "DAE told other times": (
        lambda: DAED.from_ddgm(ddgm, 5, other(time_scale=0.25)),
        "dae: trained with time_scale",
    ),
    "time 0": (lambda: model(x, torch.tensor([0, 5]), x), r"t: times run 1\.\.26"),
    "time of the uncut chain": (
        lambda: model(x, torch.tensor([1, 27]), x),
        r"t: times run 1\.\.26",
    ),
    "denoise colour": (lambda: model.denoise(x.expand(2, 3, 8, 8)), "x1: got 3 channels"),
    "denoise another size": (lambda: model.denoise(torch.zeros(1, 1, 16, 16)), "x1: got 16x16"),
    "denoise nan": (lambda: model.denoise(x * float("nan")), "x1: holds NaN"),
    "likelihood off the grid": (lambda: model.dae_nll(x + 0.3), "x0: .*grid"),
    "fit off the grid": (lambda: model.fit_dae_var(x + 0.3), "x0: .*grid"),
    "likelihood in [0,1]": (lambda: other(range=(0.0, 1.0)).dae_nll(x), r"range: .*\(-1, 1\)"),
    "data of another size": (
        lambda: denoise_learner(image_dls("digits", size=16, bs=64, device="cpu"), model),
        r"dls: .*\(1, 8, 8\).*\(1, 16, 16\)",
    ),
    "data in another range": (
        lambda: denoise_learner(image_dls("digits", range=(0.0, 1.0), bs=64, device="cpu"), model),
        "dls: .*range",
    ),
}


def shared():
    a = small()
    b = copy.deepcopy(a)
    b.conv_out = a.conv_out
    return DAED(a, b, short, (1, 8, 8))


@pytest.mark.parametrize("case", CALLS)
def test_refused(case):
    call, message = CALLS[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()
