"The diffusion model against diffusers, against closed forms, and against the mistakes that give plausible pictures"
import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import nn

from denoise_study.diffusion import ancestral, DDGM, ddim, discretized_log_likelihood, GaussianNet
from denoise_study.diffusion import LossSecondMoment, normal_kl, Schedule, UNet, UniformTime


class Spy(nn.Module):
    "A network that records the labels it is told, and returns a fixed function of the image"
    def __init__(self, out=1):
        super().__init__()
        self.seen, self.out, self.scale = [], out, nn.Parameter(torch.tensor(.3))
    def forward(self, x, label):
        self.seen.append(label.flatten().tolist())
        return (torch.tanh(x)*self.scale).repeat(1, self.out, 1, 1)


def gen(seed=0): return torch.Generator().manual_seed(seed)
def gauss(T=1000, s2=1., n=1, **kw): return DDGM(GaussianNet(Schedule.linear(T), s2), Schedule.linear(T), shape=(1, n, n), **kw)
def close(a, b, rtol=0., atol=0.): torch.testing.assert_close(torch.as_tensor(a).double(), torch.as_tensor(b).double(), rtol=rtol, atol=atol)


@pytest.mark.parametrize("var,theirs", [("large", "fixed_large"), ("small", "fixed_small")])
@pytest.mark.parametrize("clip", [False, True])
def test_ancestral_chain_equals_diffusers(var, theirs, clip):
    "A whole chain of 60 steps with the same noise"
    model = DDGM(Spy(), Schedule.linear(60), shape=(1, 4, 4), var=var)
    d = DDPMScheduler(60, beta_start=1e-4*1000/60, beta_end=.02*1000/60, variance_type=theirs, clip_sample=clip)
    xt = theirs_xt = torch.randn(3, 1, 4, 4, generator=gen())
    ours, theirs_gen = ancestral(model, xt, gen(1), clip=clip), gen(1)
    with torch.no_grad():
        for t in range(60, 0, -1):
            at, xt, _ = next(ours)
            theirs_xt = d.step(model.net(theirs_xt, torch.tensor([t - 1])), t - 1, theirs_xt, generator=theirs_gen).prev_sample
            # diffusers adds noise of its fixed-large variance at beta_1 where Ho et al. clip it to the posterior's, but none at its step 0
            assert at == t - 1
            close(xt, theirs_xt, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("eta", [0., 1.])
def test_ddim_chain_equals_diffusers(eta):
    model = DDGM(Spy(), Schedule.linear(1000), shape=(1, 4, 4)).respaced("ddim50")
    d = DDIMScheduler(1000, clip_sample=True, set_alpha_to_one=True)
    d.set_timesteps(50)
    xt = other = torch.randn(3, 1, 4, 4, generator=gen())
    other_gen = gen(1)
    with torch.no_grad():
        for (_, xt, _), i in zip(ddim(model, xt, gen(1), eta=eta), d.timesteps):
            other = d.step(model.net(other, i[None]), i, other, eta=eta, use_clipped_model_output=True, generator=other_gen).prev_sample
            close(xt, other, rtol=5e-3, atol=5e-3)


def test_network_is_told_original_times():
    "Traps 17 and 18: respaced chains use original labels; OpenAI's checkpoints of 4000 steps want a quarter of them"
    x = torch.zeros(2, 1, 4, 4)
    full = DDGM(Spy(), Schedule.cosine(4000), shape=(1, 4, 4))
    full.predict(x, torch.tensor([1, 4000]))
    short = full.respaced(250)
    short.predict(x, torch.tensor([2, 250]))
    short.predict(x, 2)
    scaled = DDGM(full.net, full.sched, shape=(1, 4, 4), time_scale=1000/4000)
    scaled.predict(x, torch.tensor([1, 4000]))
    assert full.net.seen == [[0, 3999], [16, 3999], [16, 16], [0, 3999/4]]


def test_sampling_calls_the_network_once_a_step():
    model = DDGM(Spy(), Schedule.linear(30), shape=(1, 4, 4))
    model.sample(2, progress=False)
    assert model.net.seen == [[t, t] for t in range(29, -1, -1)]


def test_last_step_returns_the_estimate_and_adds_nothing():
    model = DDGM(Spy(), Schedule.linear(30), shape=(1, 4, 4))
    xt = torch.randn(2, 1, 4, 4, generator=gen())
    for walk in (ancestral, ddim):
        (_, x, x0), = walk(model, xt, gen(), start=1)
        close(x, x0, atol=1e-6)


@pytest.mark.parametrize("var,x1,x0", [("large", 1., .9999), ("small", .99117, .99107)])
def test_gaussian_chain(var, x1, x0):
    "Trap 13: the variances at t=1 and t=0 of a chain of 1000 steps for unit data"
    model, one, v, seen = gauss(var=var), torch.ones(1, 1, 1, 1), 1., {}
    for t in range(1000, 0, -1):
        mean, log_var, _ = model.p_mean_var(one, t, clip=False)
        v = mean.item()**2*v + (math.exp(log_var) if t > 1 else 0.)
        seen[t - 1] = v
    close([seen[1], seen[0]], [x1, x0], atol=2e-5)


def test_sample_variance_matches_the_oracle():
    "The sampler itself, by drawing: 80 x 64 x 64 pixels give the variance to 0.5%"
    x = DDGM(GaussianNet(Schedule.linear(100), .25), Schedule.linear(100), shape=(1, 64, 64), var="small", range=(-9., 9.)).sample(80, bs=80, clip=False, progress=False)
    close(x.var(), .21923, rtol=.008)


def test_learned_variance_interpolates_logarithms():
    "Trap 14: v=-1 is the posterior's variance, +1 is beta"
    s = Schedule.linear(1000)
    model = DDGM(Spy(2), s, shape=(1, 2, 2), var="learned")
    x, t = torch.zeros(3, 1, 2, 2), torch.tensor([2, 100, 1000])
    ends = [model.log_var(torch.full_like(x, v), t, x)[:, 0, 0, 0] for v in (-1., 0., 1.)]
    close(ends[0], s.post_var[t].log(), rtol=1e-6)
    close(ends[2], s.beta[t].log(), rtol=1e-6)
    close(ends[1], (s.post_var[t]*s.beta[t]).sqrt().log(), rtol=1e-6)


def grads(loss):
    torch.manual_seed(0)
    head = nn.Conv2d(1, 2, 1)
    net = nn.Module()
    net.forward = lambda x, t: head(x)
    model = DDGM(net, Schedule.linear(50), shape=(1, 4, 4), loss=loss, var="learned")
    x0 = (torch.randint(0, 256, (8, 1, 4, 4), generator=gen())/127.5 - 1)
    eps, t = torch.randn(x0.shape, generator=gen(1)), torch.arange(1, 9)
    model(x0, t, eps).mean().backward()
    simple = (head(model.sched.q_sample(x0, t, eps))[:, :1] - eps).pow(2).mean()
    return head.weight.grad.flatten(), torch.autograd.grad(simple, head.weight)[0].flatten()


def test_the_bound_does_not_move_the_mean_of_a_hybrid():
    hybrid, simple = grads("hybrid")
    close(hybrid[0], simple[0], rtol=1e-5)
    assert hybrid[1] != 0 and simple[1] == 0
    vlb, _ = grads("vlb")
    assert vlb[0] != 0 and vlb[1] != 0


def test_vlb_loss_is_an_unbiased_estimate_of_the_bound():
    "Trap 15: the mean of T*L_t over times plus L_T is the bits per dimension"
    T = 25
    model = DDGM(GaussianNet(Schedule.linear(T), .3), Schedule.linear(T), shape=(1, 8, 8), loss="vlb", var="small")
    x0 = torch.randint(0, 256, (400, 1, 8, 8), generator=gen())/127.5 - 1
    bits = model.bits_per_dim(x0, clip=False, progress=False)
    assert bits["L_t"].shape == (400, T - 1) and bits["L_0"].shape == bits["total"].shape == (400,)
    close(bits["total"], bits["L_0"] + bits["L_t"].sum(1) + bits["L_T"], atol=1e-9)
    g, losses = gen(5), []
    for _ in range(100):
        w, *rand = model.draw(x0.shape, g)
        losses.append((w*model(x0, *rand)).double())
    losses = torch.cat(losses)
    error = float(losses.std()/len(losses)**.5)
    assert abs(float(losses.mean()) - float((bits["total"] - bits["L_T"]).mean())) < 4*error


def test_elbo_weights():
    "Weights of the squared noise error in L_{t-1} (section 5 of Ho et al. 2020), for both variances"
    s = Schedule.linear(1000)
    t = torch.tensor([2, 10, 100, 500, 1000])
    for var, known in ((s.post_var, [.59967, .086437, .010267, .0055082, .010205]), (s.beta, [.27269, .073717, .010081, .0055034, .010204])):
        close(s.beta[t]**2/(2*var[t]*s.alpha[t]*(1 - s.alpha_bar[t])), known, rtol=2e-4)
    half = .5*(s.snr()[t - 1] - s.snr()[t])*(1 - s.alpha_bar[t])/s.alpha_bar[t]
    close(half, s.beta[t]**2/(2*s.post_var[t]*s.alpha[t]*(1 - s.alpha_bar[t])), rtol=1e-9)
    model = gauss(var="large", n=4)
    x0, eps = torch.zeros(5, 1, 4, 4), torch.ones(5, 1, 4, 4)
    xt = s.q_sample(x0, t, eps)
    got = model.vlb_terms(x0, xt, t, torch.zeros_like(xt), None)*math.log(2)
    kl_var = normal_kl(0., s.post_var[t].log(), 0., s.beta[t].log())
    close(got, torch.tensor([.27269, .073717, .010081, .0055034, .010204]).double() + kl_var, rtol=1e-3)


def test_likelihood_reaches_far_tails():
    level, std = torch.tensor([-1., 0., 1.]), torch.tensor([1e-3]).log()
    logp = discretized_log_likelihood(level, torch.tensor(.3), std)
    assert torch.isfinite(logp).all()
    x = torch.tensor([.2], requires_grad=True)
    discretized_log_likelihood(torch.tensor([3/255]), x, torch.tensor([-4.])).backward()
    assert torch.isfinite(x.grad).all() and x.grad < 0


@pytest.mark.parametrize("make", [UniformTime, LossSecondMoment])
def test_time_samplers_are_unbiased(make):
    "Trap 12: expected weight 1, and the weighted mean of any loss is its plain mean"
    s, g = make(20), gen()
    truth = torch.linspace(3, .1, 20)
    for _ in range(60):
        t, w = s.sample(64, g)
        s.update(t, truth[t - 1])
    t, w = s.sample(100_000, g)
    assert t.min() == 1 and t.max() == 20
    close(w.mean(), 1., atol=.02)
    close((w*truth[t - 1]).mean(), truth.mean(), atol=.02)


def test_loss_second_moment_is_uniform_until_it_knows():
    s = LossSecondMoment(4, keep=2)
    s.update(torch.tensor([1, 1, 2, 2, 3, 3, 4]), torch.tensor([1., 2., 3., 4., 5., 6., 7.]))
    close(s.p, [.25]*4)
    s.update(torch.tensor([4, 1, 1, 1]), torch.tensor([8., 9., 10., 11.]))    # a ring of two: 1 keeps 11 and 10
    assert sorted(s.history[0].tolist()) == [10., 11.] and sorted(s.history[3].tolist()) == [7., 8.]
    rms = torch.tensor([(221/2)**.5, 12.5**.5, 30.5**.5, 56.5**.5]).double()
    close(s.p, .999*rms/rms.sum() + .001/4, rtol=1e-6)


def test_dropout_is_off_and_seeds_decide():
    "Trap 26: two runs with one seed are equal, in training mode too, and the mode comes back"
    torch.manual_seed(0)
    net = UNet(channels=1, width=32, mult=(1,), n_blocks=1, attn=(), dropout=.5)
    for p in net.parameters(): nn.init.normal_(p, std=.05)
    model = DDGM(net, Schedule.linear(50), shape=(1, 8, 8)).train()
    a, b, c = (model.sample(3, seed=s, steps=10, progress=False) for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c) and model.training and a.abs().max() <= 1


def test_images_of_a_batch_do_not_touch_each_other():
    torch.manual_seed(0)
    net = UNet(channels=1, width=32, mult=(1, 2), n_blocks=1, attn=(1, 2))
    for p in net.parameters(): nn.init.normal_(p, std=.05)
    model, xt = DDGM(net, Schedule.linear(50), shape=(1, 8, 8)).eval(), torch.randn(4, 1, 8, 8, generator=gen())
    with torch.no_grad():
        together = [x for _, x, _ in ddim(model, xt, gen(), start=10)][-1]
        alone = torch.cat([[x for _, x, _ in ddim(model, x1[None], gen(), start=10)][-1] for x1 in xt])
    close(together, alone, atol=1e-5)


def test_reconstruction_shares_its_corruption():
    "Trap 30: t=0 gives the image back; the three ways start from one corrupted image"
    model = gauss(100, .25, n=8, var="small")
    x0 = torch.rand(5, 1, 8, 8, generator=gen())*2 - 1
    eps = torch.randn(x0.shape, generator=gen(1))
    for how in ("ancestral", "ddim", "mean"): assert torch.equal(model.reconstruct(x0, 0, how, eps=eps), x0)
    xt = model.sched.q_sample(x0, 1, eps)
    one = model.p_mean_var(xt, 1)[2]
    for how in ("ancestral", "ddim", "mean"): close(model.reconstruct(x0, 1, how, eps=eps), one, atol=1e-6)


def test_sample_to_mean_ratio():
    "Trap 23: for Gaussian data a draw has twice the square error of the mean (1.9987 with the exact variance; .15000/.076491 with the small)"
    s = Schedule.linear(1000)
    model = DDGM(GaussianNet(s, .25), s, shape=(1, 64, 64), var="small", range=(-9., 9.))
    x0 = .5*torch.randn(40, 1, 64, 64, generator=gen(9))     # not the seed of the corruption
    mse = {how: float((model.reconstruct(x0, 98, how) - x0).pow(2).mean()) for how in ("mean", "ancestral")}
    close(mse["mean"], .076491, rtol=.01)
    close(mse["ancestral"]/mse["mean"], .15000/.076491, rtol=.01)


def test_ddgm_is_clean_under_autocast():
    model = DDGM(UNet(channels=1, width=32, mult=(1,), n_blocks=1, attn=(1,)), Schedule.linear(50), shape=(1, 8, 8))
    x0 = torch.zeros(4, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16): loss = model(x0, torch.arange(1, 5), torch.randn(x0.shape, generator=gen()))
    assert loss.dtype == torch.float32 and loss.shape == (4,)
