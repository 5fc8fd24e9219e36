"The diffusion model: times that its network is told, its three losses, its bound"

import math

import pytest
import torch
from helpers import close, gauss, gen, images, IMPROVED, openai_state, trained
from helpers_ddgm import Spy
from torch import nn

from denoise_study.diffusion import DDGM, from_openai, GaussianNet, normal_kl, Schedule, UNet


def test_network_is_told_original_times():
    "Respaced chains use original labels; OpenAI's checkpoints of 4000 steps want a quarter of them"
    x = torch.zeros(2, 1, 4, 4)
    full = DDGM(Spy(), Schedule.cosine(4000), shape=(1, 4, 4))
    full.predict(x, torch.tensor([1, 4000]))
    short = full.respaced(250)
    short.predict(x, torch.tensor([2, 250]))
    short.predict(x, 2)
    scaled = DDGM(full.net, full.sched, shape=(1, 4, 4), time_scale=1000 / 4000)
    scaled.predict(x, torch.tensor([1, 4000]))
    assert full.net.seen == [[0, 3999], [16, 3999], [16, 16], [0, 3999 / 4]]


def test_sampling_calls_the_network_once_a_step():
    model = DDGM(Spy(), Schedule.linear(30), shape=(1, 4, 4))
    model.sample(2, progress=False)
    assert model.net.seen == [[t, t] for t in range(29, -1, -1)]


def test_dropout_is_off_and_seeds_decide():
    "Two runs with one seed are equal, in training mode too, and the mode comes back"
    torch.manual_seed(0)
    net = UNet(channels=1, width=32, mult=(1,), n_blocks=1, attn=(), dropout=0.5)
    for p in net.parameters():
        nn.init.normal_(p, std=0.05)
    model = DDGM(net, Schedule.linear(50), shape=(1, 8, 8)).train()
    a, b, c = (model.sample(3, seed=s, steps=10, progress=False) for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c) and model.training and a.abs().max() <= 1


NOISY = {
    "ancestral": lambda m, n, bs: m.sample(n, seed=3, bs=bs, progress=False),
    "ddim": lambda m, n, bs: m.sample(n, 3, "ddim", eta=0.7, bs=bs, progress=False),
    "fewer steps": lambda m, n, bs: m.sample(n, seed=3, steps=7, bs=bs, progress=False),
    "reconstruct": lambda m, n, bs: m.reconstruct(images(7)[:n], 9, seed=3),
    "bits": lambda m, n, bs: m.bits_per_dim(bytes_of(n), 3, bs=bs, progress=False)["total"],
}


def bytes_of(n):
    return (images(7)[:n] * 127.5 + 127.5).round() / 127.5 - 1


@pytest.mark.parametrize("how", NOISY)
@pytest.mark.parametrize("net", ["pointwise", "U-Net"])
def test_an_image_is_the_same_in_any_batch(how, net):
    """Equal noise: a network that treats pixels alone gives equal bits; a convolution adds in
    another order in another batch"""
    model = trained(T=24)
    if net == "pointwise":
        sched = Schedule.linear(24)
        model = DDGM(GaussianNet(sched, 0.25), sched, (1, 8, 8))
    whole = NOISY[how](model, 7, 7)
    for n, bs in ((7, 2), (3, 3), (1, 256)):
        some = NOISY[how](model, n, bs)
        close(some, whole[:n], atol=0 if net == "pointwise" else 1e-3)


# The reverse step and the losses


def test_learned_variance_interpolates_logarithms():
    "v = -1 is the posterior's variance, +1 is beta, 0 their geometric mean"
    s = Schedule.linear(1000)
    model = DDGM(Spy(2), s, shape=(1, 2, 2), var="learned")
    x, t = torch.zeros(3, 1, 2, 2), torch.tensor([2, 100, 1000])
    logits = [torch.full_like(x, v) for v in (-1.0, 0.0, 1.0)]
    low, middle, high = (model.log_var(v, t, x)[:, 0, 0, 0] for v in logits)
    close(low, s.post_var[t].log(), rtol=1e-6)
    close(high, s.beta[t].log(), rtol=1e-6)
    close(middle, (s.post_var[t] * s.beta[t]).sqrt().log(), rtol=1e-6)


def grads(loss):
    "Gradient of a loss in the two channels of a network, and that of the simple loss"
    torch.manual_seed(0)
    head = nn.Conv2d(1, 2, 1)
    net = nn.Module()
    net.forward = lambda x, t: head(x)
    model = DDGM(net, Schedule.linear(50), shape=(1, 4, 4), loss=loss, var="learned")
    x0 = torch.randint(0, 256, (8, 1, 4, 4), generator=gen()) / 127.5 - 1
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


def test_ddgm_is_clean_under_autocast():
    net = UNet(channels=1, width=32, mult=(1,), n_blocks=1, attn=(1,))
    model = DDGM(net, Schedule.linear(50), shape=(1, 8, 8))
    x0 = torch.zeros(4, 1, 8, 8)
    eps = torch.randn(x0.shape, generator=gen())
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(x0, torch.arange(1, 5), eps)
    assert loss.dtype == torch.float32 and loss.shape == (4,)


# The bound


def test_vlb_loss_is_an_unbiased_estimate_of_the_bound():
    "The mean of T*L_t over times plus L_T is the bits per dimension"
    T = 25
    sched = Schedule.linear(T)
    model = DDGM(GaussianNet(sched, 0.3), sched, shape=(1, 8, 8), loss="vlb", var="small")
    x0 = torch.randint(0, 256, (400, 1, 8, 8), generator=gen()) / 127.5 - 1
    bits = model.bits_per_dim(x0, clip=False, progress=False)
    assert bits["L_t"].shape == (400, T - 1)
    assert bits["L_0"].shape == bits["total"].shape == (400,)
    close(bits["total"], bits["L_0"] + bits["L_t"].sum(1) + bits["L_T"], atol=1e-9)
    g, losses = gen(5), []
    for _ in range(100):
        w, *rand = model.draw(x0.shape, g)
        losses.append((w * model(x0, *rand)).double())
    losses = torch.cat(losses)
    error = float(losses.std() / len(losses) ** 0.5)
    assert abs(float(losses.mean() - (bits["total"] - bits["L_T"]).mean())) < 4 * error


SMALL = [0.59967, 0.086437, 0.010267, 0.0055082, 0.010205]
LARGE = [0.27269, 0.073717, 0.010081, 0.0055034, 0.010204]


def test_elbo_weights():
    "Weights of the squared noise error in L_{t-1} (Ho et al. 2020 section 5), for both variances"
    s = Schedule.linear(1000)
    t = torch.tensor([2, 10, 100, 500, 1000])
    weight = lambda var: s.beta[t] ** 2 / (2 * var[t] * s.alpha[t] * (1 - s.alpha_bar[t]))
    for var, known in ((s.post_var, SMALL), (s.beta, LARGE)):
        close(weight(var), known, rtol=2e-4)
    half = 0.5 * (s.snr()[t - 1] - s.snr()[t]) * (1 - s.alpha_bar[t]) / s.alpha_bar[t]
    close(half, weight(s.post_var), rtol=1e-9)
    model = gauss(s2=1.0, n=4, var="large")
    x0, eps = torch.zeros(5, 1, 4, 4), torch.ones(5, 1, 4, 4)
    xt = s.q_sample(x0, t, eps)
    got = model.vlb_terms(x0, xt, t, torch.zeros_like(xt), None) * math.log(2)
    kl_var = normal_kl(0.0, s.post_var[t].log(), 0.0, s.beta[t].log())
    close(got, torch.tensor(LARGE).double() + kl_var, rtol=1e-3)


# Reconstruction


@pytest.mark.parametrize("how", ["ancestral", "ddim", "mean"])
def test_reconstruction_shares_its_corruption(how):
    "t = 0 gives the image back; the three ways start from one corrupted image"
    model = gauss(Schedule.linear(100), n=8, var="small", range=(-1.0, 1.0))
    x0 = torch.rand(5, 1, 8, 8, generator=gen()) * 2 - 1
    eps = torch.randn(x0.shape, generator=gen(1))
    assert torch.equal(model.reconstruct(x0, 0, how, eps=eps), x0)
    one = model.p_mean_var(model.sched.q_sample(x0, 1, eps), 1)[2]
    close(model.reconstruct(x0, 1, how, eps=eps), one, atol=1e-6)


def test_openai_checkpoint_is_told_its_times_and_class():
    "A class-conditional network of 4000 steps: it hears a quarter of each time, and answers as one"
    state = openai_state(**IMPROVED, out=6, n_classes=10)
    told = dict(side=8, schedule="cosine", T=4000, time_scale=0.25, heads=4)
    m = DDGM.from_openai(state, label=3, **told)
    assert (m.var, m.loss, m.shape, m.sched) == (
        "learned",
        "hybrid",
        (3, 8, 8),
        Schedule.cosine(4000),
    )
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([1, 4000])
    with torch.no_grad():
        theirs = from_openai(state, heads=4)(x, (t - 1) * 0.25, torch.tensor([3, 3]))
        ours = torch.cat(m.predict(x, t), 1)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)

    with pytest.raises(ValueError, match="label: this network wants a class, 0..9"):
        DDGM.from_openai(state, **told)
    with pytest.raises(ValueError, match=r"k: a class in 0..9 is needed, got 10"):
        DDGM.from_openai(state, label=10, **told)
    with pytest.raises(ValueError, match="label: this network has no classes"):
        DDGM.from_openai(openai_state(**IMPROVED), label=1, **told)
    with pytest.raises(ValueError, match="wants one of 10 classes.*of_class"):
        DDGM(from_openai(state, heads=4), Schedule.linear(50), (3, 8, 8), var="learned", loss="vlb")


def test_published_models_come_with_their_settings():
    m = DDGM.from_openai(openai_state(**IMPROVED, out=6), "imagenet64_uncond_vlb")
    assert (m.loss, m.time_scale, m.shape, m.sched.T) == ("vlb", 0.25, (3, 64, 64), 4000)
    m = DDGM.from_openai(
        openai_state(**IMPROVED | dict(width=64), out=6, n_classes=2), "64x64_diffusion", label=0
    )
    assert m.net.config["new_order"] and m.net.config["head_channels"] == 64


def test_a_variance_that_nothing_trains_is_said():
    net = UNet(width=32, mult=(1, 2), n_blocks=1, attn=(2,), learn_sigma=True)
    with pytest.warns(UserWarning, match="'simple' trains no variance"):
        DDGM(net, Schedule.linear(50), (3, 8, 8), var="learned")
