"The contract, its adapters against exact answers and second implementations, and the samplers against closed recursions. T1..T32: traps that cost a reproduction its result"
import math
import warnings

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from torch import nn

from denoise_study.daed import DAED
from denoise_study.core import denoise_learner, image_dls, load_checkpoint, save_checkpoint
from denoise_study.core import untrained
from denoise_study.diffusion import DDGM, GaussianNet, Schedule, UNet
from denoise_study.denoiser import ascend, Blind, BlindUNet, Denoiser, denoiser, descend
from denoise_study.denoiser import GaussianDenoiser, halving, MixtureDenoiser, noise_law
from denoise_study.denoiser import noise_levels, plot_psnr, psnr_curve, residual_sigma, sample

SMALL = dict(channels=1, widths=(6, 10, 14, 22), depths=(2, 3, 2))


def gen(seed=0): return torch.Generator().manual_seed(seed)
def gens(seeds): return [gen(100 + i) for i in seeds]
def rand(*shape, seed=0): return torch.rand(shape, generator=gen(seed))
def randn(*shape, seed=0): return torch.randn(shape, generator=gen(seed))
def blind(seed=0):
    torch.manual_seed(seed)
    return denoiser(BlindUNet(**SMALL), shape=(1, 8, 8))
def unet(**kw): return UNet(**dict(channels=1, width=32, mult=(1, 2), n_blocks=2, attn=(2,)) | kw)
def hooks(net): return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


class Tiny(nn.Module):
    "A bias-free denoiser that returns the residual"
    def __init__(self, fails=False):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.Conv2d(8, 1, 3, padding=1, bias=False)
        self.spare, self.fails = nn.Conv2d(1, 1, 1), fails

    def forward(self, x, sigma=None):
        h = self.a(x).relu()
        if self.fails: raise RuntimeError("out of memory")
        return self.b(h) if sigma is None else self.b(h)*sigma.view(-1, 1, 1, 1)


# --- oracles

@pytest.mark.parametrize("sigma", [.05, .3, 1.])
def test_t6_score_is_the_gradient_of_the_log_density(sigma):
    D = MixtureDenoiser(rand(3, 1, 2, 3).double(), .02, torch.tensor([.5, .3, .2]))
    y, v = rand(4, 1, 2, 3, seed=1).double(), randn(4, 1, 2, 3, seed=2).double()
    slope = (D.log_density(y + 1e-5*v, sigma) - D.log_density(y - 1e-5*v, sigma))/2e-5
    assert torch.allclose(((D(y, sigma) - y)/sigma**2*v).sum((1, 2, 3)), slope, rtol=1e-4)
    assert torch.allclose(D.score(y, sigma), (D(y, sigma) - y)/sigma**2)


def test_mixture_against_importance_sampling():
    "E[x_clean | x] by brute force: prior samples weighted with the likelihood"
    means, w, sigma = rand(3, 1, 1, 2), torch.tensor([.6, .3, .1]), .3
    x0 = means[torch.multinomial(w, 400_000, replacement=True, generator=gen())] + .2*randn(400_000, 1, 1, 2, seed=1)
    y = torch.tensor([.2, .9]).view(1, 1, 1, 2)
    p = (-(y - x0).pow(2).sum((1, 2, 3))/(2*sigma**2)).double().softmax(0)
    want = (p[:, None]*x0.flatten(1)).sum(0)
    assert torch.allclose(MixtureDenoiser(means, .04, w)(y, sigma).flatten().double(), want, atol=3e-3)


def test_gaussian_denoiser():
    A = randn(4, 4).double()
    cov, mean, y = A@A.T, rand(1, 2, 2).double(), randn(5, 1, 2, 2, seed=1).double()
    sigma = torch.tensor([.1, .5, 1., 2., 0.], dtype=torch.float64)
    eye = torch.eye(4).double()
    want = torch.stack([mean.flatten() + cov@torch.linalg.solve(cov + s**2*eye, (v - mean).flatten()) for v, s in zip(y, sigma)])
    assert torch.allclose(GaussianDenoiser(mean, cov)(y, sigma).flatten(1), want)
    var = cov.diagonal().view(1, 2, 2)
    assert torch.allclose(GaussianDenoiser(mean, var)(y, sigma), GaussianDenoiser(mean, cov.diagonal().diag())(y, sigma))
    assert torch.equal(GaussianDenoiser(mean, 0*var)(y, 0.), mean.expand_as(y)) # 0/0 is no nan


def test_blind_gaussian_finds_sigma():
    var = torch.zeros(1, 32, 32)
    var[0, 0, :4] = 1.
    for v in (var, var.flatten().diag()):
        told, own = GaussianDenoiser(torch.zeros(1, 32, 32), v), GaussianDenoiser(torch.zeros(1, 32, 32), v, blind=True)
        y = var.sqrt()*randn(3, 1, 32, 32) + torch.tensor([.1, .5, 2.]).view(-1, 1, 1, 1)*randn(3, 1, 32, 32, seed=1)
        assert torch.allclose(own(y), told(y, torch.tensor([.1, .5, 2.])), atol=.1)
        assert torch.allclose(own(y)[:1], own(y[:1]), atol=1e-6)


def test_t30_fitted_linear_denoiser_reaches_the_minimum_on_gaussian_data():
    d = 64
    basis, lam = torch.linalg.qr(randn(d, d))[0], torch.logspace(-1, -4, d)
    draw = lambda n, seed: (.5 + .1*(randn(n, d, seed=seed)*lam.sqrt())@basis.T).view(n, 1, 8, 8).clamp(0, 1)
    D, test = GaussianDenoiser.fit(draw(4000, 1)), draw(1000, 2)
    for s in (.1, .25, .5):
        mse = (D(test + s*randn(*test.shape, seed=3), s) - test).pow(2).sum((1, 2, 3)).mean()
        assert abs(mse/(.01*lam*s**2/(.01*lam + s**2)).sum() - 1) < .05


def test_fit_with_fewer_images_than_pixels_is_shrunk():
    train, test = rand(40, 1, 8, 8), rand(200, 1, 8, 8, seed=1)
    D = GaussianDenoiser.fit(train)
    assert D.rest > 0 and (D(test + .3*randn(*test.shape), .3) - test).pow(2).mean() < 1.1*(1/12)*.09/(1/12 + .09)


# --- the contract

def test_sigma_forms_agree():
    D, y = GaussianDenoiser(torch.zeros(1, 2, 2), torch.ones(1, 2, 2)), randn(3, 1, 2, 2)
    want = y/1.25
    for s in (.5, torch.tensor(.5), torch.full((3,), .5), np.float64(.5)): assert torch.allclose(D(y, s), want)


def test_blind_denoiser_ignores_sigma_and_is_in_evaluation_mode():
    D, x = blind(), rand(2, 1, 8, 8)
    assert torch.equal(D(x), D(x, .7)) and torch.equal(D.phi(x), D.averages(x, .2)["mid"]) and not D.net.training
    assert D.multiple == 8 and D.phi(x).shape == (2, 22) and D.maps(x)["mid"].shape == (2, 22, 1, 1)
    assert denoiser(D) is D and denoiser(Blind(D.net, (1, 16, 16), (0., 2.))).sigmas == (0., 2.)


def test_name_follows_the_weights_and_nothing_else():
    D = blind()
    assert D.name == blind().name == denoiser(Blind(D.net, (1, 16, 16), (0., 2.))).name != blind(1).name
    assert D.name.startswith("BlindUNet-") and GaussianDenoiser(torch.zeros(1, 2, 2), torch.ones(1, 2, 2)).name.startswith("GaussianDenoiser-0-")
    tiny = Tiny()
    assert denoiser(tiny, predicts="clean").name != denoiser(tiny, predicts="residual").name
    before = D.name
    with torch.no_grad(): D.net.out.bias += 1e-3
    assert D.name != before


def test_t9_phi_is_differentiable_with_frozen_weights():
    for D, sigma in ((blind(), None), (denoiser(DDGM(unet(), Schedule.linear(50), (1, 8, 8))), .3), (denoiser(Tiny(), predicts="residual", taps=dict(mid="a")), None)):
        D.requires_grad_(False)
        x, v = rand(1, 1, 8, 8).requires_grad_(), randn(1, 1, 8, 8, seed=1)
        slope = (torch.autograd.grad(D.phi(x, sigma).sum(), x)[0]*v).sum()
        with torch.no_grad(): wide = (D.phi(x + 5e-4*v, sigma).sum() - D.phi(x - 5e-4*v, sigma).sum())/1e-3
        assert slope.abs() > 0 and torch.isclose(slope, wide, rtol=.05)


# --- adapters

SCHEDULES = {"linear": lambda: (Schedule.linear(100), Schedule.linear(100)),
             "cosine, respaced": lambda: (Schedule.cosine(100), Schedule.cosine(100).respace(20))}


@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("scale", [1., .25])
def test_gaussian_ddgm_is_wieners_filter(make, nearest, scale):
    "Data of variance .25 in [-1,1] have .0625 in [0,1]; noise sigma in [0,1] is 2 sigma there"
    full, sched = make()
    D = denoiser(DDGM(GaussianNet(full, .25, scale), sched, (1, 4, 4), time_scale=scale), clip=False, nearest=nearest)
    exact, x = GaussianDenoiser(torch.full((1, 4, 4), .5), torch.full((1, 4, 4), .0625)), 2*rand(6, 1, 4, 4) - .5
    t = torch.tensor([1, 2, 5, 10, 15, 20])
    sigma = ((1 - sched.alpha_bar[t])/sched.alpha_bar[t]).sqrt().float()/2
    assert torch.allclose(D(x, sigma), exact(x, sigma), atol=2e-5)
    assert torch.allclose(D._label(2*sigma), ((sched.steps[t] - 1)*scale).float(), atol=2e-3*scale)


def test_labels_between_steps():
    D = denoiser(DDGM(unet(), Schedule.linear(100), (1, 8, 8)))
    log_s = D.log_s[[30, 31]]
    s = torch.stack([log_s[0], log_s.mean(), log_s[1]]).exp()
    assert torch.allclose(D._label(s), torch.tensor([30., 30.5, 31.]), atol=1e-3)
    assert D._label(torch.tensor([0., 1e-9, 1e9])).tolist() == [0., 0., 99.] # beyond the table: its ends
    near = denoiser(DDGM(unet(), Schedule.linear(100), (1, 8, 8)), nearest=True)
    assert set((near._label(torch.logspace(-1, 1, 50)) % 1).tolist()) == {0.}


class Exact(nn.Module):
    "The optimal network for N(0, s2) at whole steps, in any way of speaking"
    def __init__(self, sched, s2, kind): super().__init__(); self.sched, self.s2, self.kind = sched, s2, kind
    def forward(self, xt, label):
        t = label.round().long() + 1
        ab = self.sched.alpha_bar[t].float().view(-1, 1, 1, 1)
        return self.sched.from_x0(ab.sqrt()*self.s2/(ab*self.s2 + 1 - ab)*xt, xt, t, self.kind)


@pytest.mark.parametrize("kind", ["eps", "x0", "v", "score"])
def test_every_way_of_speaking(kind):
    sched = Schedule.linear(100)
    D = denoiser(DDGM(Exact(sched, .25, kind), sched, (1, 4, 4), pred=kind), clip=False)
    sigma, x = D.log_s[[3, 30, 60]].exp().float()/2, rand(3, 1, 4, 4)
    exact = GaussianDenoiser(torch.full((1, 4, 4), .5), torch.full((1, 4, 4), .0625))
    assert torch.allclose(D(x, sigma), exact(x, sigma), atol=1e-4)


def test_ddgm_denoiser_is_the_models_own_estimate():
    torch.manual_seed(0)
    m = DDGM(unet(learn_sigma=True), Schedule.cosine(50), (1, 8, 8), var="learned").eval()
    for p in m.net.parameters(): nn.init.normal_(p, std=.05)
    D, x, t = denoiser(m), rand(2, 1, 8, 8), 20
    xt = m.sched.q_sample(2*x - 1, t, torch.zeros_like(x)) # x carries its noise already
    with torch.no_grad(): assert torch.allclose(D(x, D.log_s[t-1].exp().item()/2), (m.p_mean_var(xt, t)[2] + 1)/2, atol=1e-5)


@pytest.mark.parametrize("kw", [{}, dict(updown=True), dict(conv_resample=False), dict(mult=(1, 2, 2), n_blocks=1, attn=())])
def test_places_of_the_unet_are_before_any_change_of_resolution(kw):
    D, levels = denoiser(DDGM(unet(**kw), Schedule.linear(50), (1, 16, 16))), len(kw.get("mult", (1, 2)))
    with torch.no_grad(): maps = D.maps(rand(2, 1, 16, 16), .3, D.taps)
    for i in range(1, levels + 1):
        for name in (f"enc{i}.in", f"enc{i}", f"dec{i}.in", f"dec{i}"): assert maps[name].shape[2] == 16//2**(i - 1), name
        assert maps[f"enc{i}"].shape[1] == maps[f"dec{i}"].shape[1] == D.net.config["mult"][i-1]*32
    assert torch.equal(maps["mid.in"], maps[f"enc{levels}"]) and hooks(D.net) == 0
    assert torch.allclose(D.averages(rand(2, 1, 16, 16), .3)["mid"], maps["mid"].mean((2, 3)), atol=1e-6)


def test_reading_stops_after_the_middle():
    D = denoiser(DDGM(unet(), Schedule.linear(50), (1, 8, 8)))
    def fail(*a): raise AssertionError("the way up was computed")
    handle = D.net.up[0].register_forward_pre_hook(fail)
    D.phi(rand(1, 1, 8, 8), .3)
    with pytest.raises(AssertionError): D(rand(1, 1, 8, 8), .3)
    handle.remove()


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_diffusers_model_against_the_schedulers_own_formula(kind):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    net = diffusers.UNet2DModel(16, 1, 1, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=8,
                                down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D")).eval()
    scheduler = diffusers.DDPMScheduler(100, prediction_type=kind, clip_sample=False)
    D, x = denoiser(net, scheduler=scheduler, clip=False), 3*rand(2, 1, 16, 16) - 1
    assert D.shape == (1, 16, 16) and D.multiple == 2
    for t in (0, 7, 60, 99):
        ab = scheduler.alphas_cumprod[t]
        xt = ab.sqrt()*(2*x - 1)
        with torch.no_grad(): want = scheduler.step(net(xt, t).sample, t, xt).pred_original_sample
        with torch.no_grad(): got = D(x, ((1 - ab)/ab).sqrt().item()/2)
        assert torch.allclose(2*got - 1, want, atol=1e-3*want.abs().max().item()), t
    maps = D.maps(x, .3, D.taps)
    assert [maps[k].shape[1:] for k in ("enc1", "enc2", "mid", "dec2", "dec1")] == [(8, 16, 16), (16, 8, 8), (16, 8, 8), (16, 8, 8), (8, 16, 16)]
    assert hooks(net) == 0


def test_daed_parts():
    full = Schedule.linear(100)
    merged = full.merge_first(10)
    m = DAED(GaussianNet(full, .25), Exact(full, .25, "x0"), merged, (1, 4, 4), dae_pred="x0")
    exact, x = GaussianDenoiser(torch.full((1, 4, 4), .5), torch.full((1, 4, 4), .0625)), 2*rand(4, 1, 4, 4) - .5
    s = ((1 - merged.alpha_bar)/merged.alpha_bar).sqrt()/2
    dae, chain, generator = (denoiser(m, part=p, clip=False) for p in ("dae", "chain", "generator"))
    level = s[1].item()
    assert dae.sigmas == pytest.approx((level, level)) and torch.allclose(dae(x), exact(x, level), atol=1e-5)
    assert torch.allclose(dae(x, level), dae(x)) and not dae.blind
    sigma = s[[1, 2, 30, 91]].float()
    assert torch.allclose(chain(x, sigma), exact(x, sigma), atol=2e-5)
    assert torch.allclose(generator(x, s[40].item()), exact(x, s[40].item()), atol=1e-5)
    clipped, x1 = denoiser(m), merged.q_sample(2*x - 1, 1, torch.zeros_like(x))
    assert torch.allclose(clipped(x), (m.denoise(x1) + 1)/2, atol=1e-6)
    with pytest.raises(ValueError, match="sigma: .*alone"): dae(x, 2*level)


def test_daed_chain_reads_one_network_at_a_time():
    full = Schedule.linear(100)
    m = DAED(unet(), unet(), full.merge_first(10), (1, 8, 8))
    chain, x = denoiser(m, part="chain"), rand(2, 1, 8, 8)
    low, high = chain.parts[0].sigmas[0], 1.
    with torch.no_grad():
        assert torch.equal(chain.phi(x, low), denoiser(m).phi(x)) and torch.equal(chain.phi(x, high), denoiser(m, part="generator").phi(x, high))
    with pytest.raises(ValueError, match="one at a time"): chain.phi(x, torch.tensor([low, high]))
    fresh = untrained(chain)
    assert fresh.name != chain.name and fresh.net.dae is fresh.parts[0].net # the parts follow the copy


@pytest.mark.parametrize("predicts", ["clean", "residual"])
@pytest.mark.parametrize("range", [(0., 1.), (-1., 1.)])
@pytest.mark.parametrize("told", [False, True])
def test_foreign_network(predicts, range, told):
    torch.manual_seed(0)
    net, x, (lo, hi) = Tiny(), rand(2, 1, 8, 8), range
    D = denoiser(net, shape=(1, 8, 8), predicts=predicts, range=range, blind=not told, taps=dict(mid="a", last="b"))
    y, sigma = lo + (hi - lo)*x, torch.tensor([.1, .2])
    with torch.no_grad():
        out = net(y, (hi - lo)*sigma) if told else net(y)
        want = ((out if predicts == "clean" else y - out) - lo)/(hi - lo)
        assert torch.allclose(D(x, sigma), want, atol=1e-6)
        assert torch.allclose(D.phi(x, sigma), net.a(y).mean((2, 3)), atol=1e-6)
        assert D.taps == ("mid.in", "mid", "last.in", "last") and torch.equal(D.maps(x, sigma, ("mid.in",))["mid.in"], y)
    assert hooks(net) == 0


def test_no_hook_stays_after_an_error():
    net = Tiny(fails=True)
    D = denoiser(net, predicts="residual", taps=("a", "b"))
    with pytest.raises(RuntimeError, match="out of memory"): D.averages(rand(1, 1, 8, 8), taps=("b",))
    assert hooks(net) == 0
    assert D.averages(rand(1, 1, 8, 8), taps=("a",))["a"].shape == (1, 8) # read before the failure
    D = denoiser(Tiny(), predicts="residual", taps=("spare",))
    with pytest.raises(ValueError, match="did not call.*spare"): D.averages(rand(1, 1, 8, 8), taps=("spare",))
    assert hooks(D.net) == 0


# --- training

def test_t13_t14_noise_law_in_a_batch():
    "Of the square-root law on [0,1]: mean 1/3, E sigma^2 1/5, quantiles .01 .25 .81; noise of unit variance times sigma"
    model = Blind(BlindUNet(**SMALL), (1, 8, 8))
    w, sigma, z = model.draw((40_000, 1, 2, 2), gen())
    assert (w == 1).all() and sigma.shape == (40_000,) and z.std() == pytest.approx(1, abs=.01)
    assert sigma.mean() == pytest.approx(1/3, abs=.005) and sigma.pow(2).mean() == pytest.approx(1/5, abs=.005)
    assert np.allclose(sigma.quantile(torch.tensor([.1, .5, .9])), [.01, .25, .81], atol=.01)
    seen = {}
    model.net = type("Net", (nn.Module,), dict(forward=lambda self, x: seen.setdefault("x", x)))()
    losses = model(torch.full((40_000, 1, 2, 2), .5), sigma, z)
    assert (seen["x"] - .5).pow(2).mean() == pytest.approx(1/5, abs=.006) # not 255 times that, not four times
    assert torch.allclose(losses, (sigma.view(-1, 1, 1, 1)*z).pow(2).sum((1, 2, 3)), rtol=1e-3, atol=1e-5) # a sum over pixels


@pytest.mark.parametrize("law, half", [("sqrt", .25), ("uniform", .5), ("log", .1)])
def test_noise_laws(law, half):
    lo = .01 if law == "log" else 0.
    q = noise_law(law, torch.tensor([0., .5, 1.]), lo, 1.)
    assert np.allclose(q, [lo, half, 1.], atol=1e-6)


def test_halving_and_resume(tmp_path):
    "The rate over a training, and a training that is killed and resumed: bit-identical"
    torch.set_num_threads(1)
    class Kill(Callback):
        order = 99
        def after_batch(self):
            if self.training and self.learn.train_iter == 7: raise KeyboardInterrupt
    def learner(folder, cbs=()):
        torch.manual_seed(0)
        model = Blind(BlindUNet(channels=1, widths=(4, 6), depths=(1, 1, 2)), (1, 8, 8))
        dls = image_dls("digits", bs=256, range=(0., 1.), device="cpu", valid=10)
        learn = denoise_learner(dls, model, ema=.9, bf16=True, folder=tmp_path/folder, cbs=cbs)
        learn.resume.steps = 1
        return learn
    def fit(learn):
        with learn.no_bar(), learn.no_logging(): learn.fit(2, cbs=halving(1e-3))
    whole = learner("whole")
    fit(whole)
    n = len(whole.recorder.lrs)
    assert np.allclose(whole.recorder.lrs, [1e-3*.5**(10*i//n) for i in range(n)], rtol=1e-6)
    with pytest.raises(KeyboardInterrupt): fit(learner("killed", [Kill()]))
    again = learner("killed")
    fit(again)
    for a, b in zip(whole.model.state_dict().values(), again.model.state_dict().values()): assert torch.equal(a, b)
    for a, b in zip(whole.ema_model.state_dict().values(), again.ema_model.state_dict().values()): assert torch.equal(a, b)


def test_checkpoint_round_trip(tmp_path):
    model = Blind(BlindUNet(**SMALL), (1, 8, 8), (.01, 2.), "log")
    save_checkpoint(tmp_path/"m.safetensors", model)
    loaded = load_checkpoint(tmp_path/"m.safetensors")
    assert loaded.config["law"] == "log" and loaded.sigmas == (.01, 2.) and denoiser(loaded).name == denoiser(model).name


# --- measurement

def test_psnr_curve_gives_all_denoisers_the_same_noise():
    x, seen = rand(10, 1, 8, 8), []
    class Spy(Denoiser):
        def _denoise(self, x, sigma): seen.append(x); return x
    a, b = Spy(nn.Identity()), Spy(nn.Identity())
    t = psnr_curve(dict(a=a, b=b), x, (.1, .5), progress=False)
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[2], seen[3]) and not torch.allclose((seen[0] - x)*5, seen[2] - x)
    assert np.allclose(t.psnr_in, t.psnr) and np.allclose(t.sigma_hat, 0) and (t.low <= t.psnr).all() and (t.psnr <= t.high).all()
    assert np.allclose(t.psnr_in, -20*np.log10(t.sigma), atol=.6) and set(t.n) == {10}
    small = psnr_curve(dict(a=a, b=b), x, (.1, .5), bs=3, progress=False)
    assert np.allclose(small[["psnr", "low", "high", "mse"]], t[["psnr", "low", "high", "mse"]]) # whatever the batches
    assert not np.allclose(psnr_curve(a, x, (.1, .5), seed=1, progress=False).psnr, t[t.denoiser == "a"].psnr)
    assert len(plot_psnr(t).lines) == 3


def test_residual_sigma_is_low_by_the_error():
    lam, s = .0625, .3
    D = GaussianDenoiser(torch.full((1, 8, 8), .5), torch.full((1, 8, 8), lam))
    y = .5 + lam**.5*randn(4000, 1, 8, 8) + s*randn(4000, 1, 8, 8, seed=1)
    assert residual_sigma(D, y, s).pow(2).mean() == pytest.approx(s**2 - lam*s**2/(lam + s**2), rel=.01)
    two = torch.cat([y[:1], 100*y[1:2]]) # T15: each image has its own
    assert torch.allclose(residual_sigma(D, two, s)[:1], residual_sigma(D, two[:1], s))


def test_untrained_control():
    models = [blind(), denoiser(DDGM(unet(), Schedule.linear(50), (1, 8, 8))), denoiser(Tiny(), predicts="residual")]
    for D in models:
        with torch.no_grad():
            for p in D.parameters(): p += 1
        name, state = D.name, torch.get_rng_state()
        a, b, c = untrained(D, 1), untrained(D, 1), untrained(D, 2)
        assert a.name == b.name != c.name and D.name == name != a.name and torch.equal(torch.get_rng_state(), state)
        assert a.taps == D.taps and a.sigmas == D.sigmas and type(a) is type(D)
        assert all((p - q).abs().max() > .01 for p, q in zip(a.parameters(), D.parameters())) # not one was forgotten


def test_fresh_weights_where_the_network_starts_at_zero():
    "A fresh diffusion network returns zeros; with `zeros`, noise of that size instead. A model around a network serves as well"
    m, x = DDGM(unet(), Schedule.linear(50), (1, 8, 8)), rand(2, 1, 8, 8)
    for p in m.parameters(): nn.init.constant_(p, .5)
    blank, loud = untrained(m, 1), untrained(m, 1, zeros=.02)
    assert isinstance(blank, DDGM) and blank.net(x, torch.zeros(2)).abs().max() == 0
    assert loud.net(x, torch.zeros(2)).abs().max() > 1e-3 and all(p.any() for p in loud.parameters())
    same = [k for k, p in loud.named_parameters() if torch.equal(p, dict(blank.named_parameters())[k])]
    assert same and all(dict(blank.named_parameters())[k].any() for k in same) # only what was zero differs


# --- sampling

LAM = np.array([4, 1, .5, .25, .1, .05, .02, .01])


def recursion(h0, beta, growing, end=.01):
    "Noise estimate at every step and final variance over lam: 8 directions with data, 504 empty ones"
    L, v, noise, sigma = np.r_[LAM, np.zeros(504)], np.ones(512), 1., []
    while True:
        t = len(sigma) + 1
        h, k = h0*t/(1 + h0*(t - 1)) if growing else h0, noise/(L + noise)
        sigma.append((v*k**2).mean()**.5)
        if sigma[-1] <= end: return np.array(sigma), (v*(1 - k)**2)[:8]/LAM
        gamma2 = ((1 - beta*h)**2 - (1 - h)**2)*sigma[-1]**2
        v, noise = v*(1 - h*k)**2 + gamma2, noise*(1 - h)**2 + gamma2


def world(blind=True):
    var = torch.zeros(1, 16, 32)
    var[0, 0, :8] = torch.tensor(LAM)
    return GaussianDenoiser(torch.zeros(1, 16, 32), var, blind)


def data_only(): return GaussianDenoiser(torch.zeros(1, 1, 8), torch.tensor(LAM).float().view(1, 1, 8))
def ratios(x): return (x[:, 0, 0, :8].pow(2).mean(0)/torch.tensor(LAM)).numpy()


# 3.1's table of the notes: final variance over lam
TABLE = {(.01, 1., True): (33, [.20, .49, .64, .76, .85, .88, .90, .90]), (.01, .5, True): (48, [.34, .70, .82, .87, .89, .88, .87, .86]),
         (.01, .1, True): (121, [.76, .82, .80, .78, .77, .76, .75, .74]), (.05, .1, False): (832, [.86, .97, .98, .98, .97, .97, .97, .97])}


@pytest.mark.parametrize("setting", list(TABLE)[:3], ids=str)
def test_t16_t17_ascent_follows_its_recursion(setting):
    h0, beta, growing = setting
    steps = list(ascend(world(), randn(600, 1, 16, 32), gen(1), h0, beta, .01, growing))
    sigma, variance = recursion(*setting)
    n = int(.8*len(sigma))
    # 1% where the fluctuations of single images do not add up over a hundred steps
    assert np.allclose([s.sigma.mean() for s in steps[:n]], sigma[:n], rtol=.01 if beta >= .5 else .05)
    taken = 1 + sum(s.active.float().mean().item() for s in steps)
    assert abs(taken - TABLE[setting][0]) < .02*TABLE[setting][0]
    assert np.allclose(ratios(steps[-1].x), variance, rtol=.22) # 600 samples: 6% each


@pytest.mark.parametrize("setting", TABLE, ids=str)
def test_t17_recursion_is_the_tables(setting):
    sigma, variance = recursion(*setting)
    assert len(sigma) == TABLE[setting][0] and np.abs(variance - TABLE[setting][1]).max() < .0125


def test_t16_beta_1_adds_no_noise():
    D, x = world(), randn(4, 1, 16, 32)
    a, b = ([s.x for s in ascend(D, x, gen(seed), beta=1.)][-1] for seed in (1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(*([s.x for s in ascend(D, x, gen(seed), beta=.9)][-1] for seed in (1, 2)))


@pytest.mark.parametrize("beta, growing, end, n", [(.5, True, .01, 47), (.1, True, .01, 127), (.05, True, .01, 200), (.01, True, .01, 661),
                                                  (.5, False, .05, 598), (.1, False, .05, 2995)])
def test_iteration_counts_of_the_rule(beta, growing, end, n):
    "A denoiser that is told the intended level takes the nominal number of steps, and one call more that finishes"
    D = GaussianDenoiser(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    assert len(list(ascend(D, torch.zeros(1, 1, 1, 1), gen(), .01, beta, end, growing))) == n + 1


def test_t20_last_step_denoises():
    x = list(ascend(world(), randn(20, 1, 16, 32), gen(), sigma_end=.1))[-1].x
    assert (x[:, :, 1:] == 0).all() and (x[:, :, 0, 8:] == 0).all() # empty directions
    for rule in ("ancestral", "renoise"):
        assert (list(descend(world(), randn(3, 1, 16, 32), gen(), [1., .5, .1], rule))[-1].x[:, :, 1:] == 0).all()


@pytest.mark.parametrize("D", [world(), world(False), blind()], ids=["blind oracle", "told oracle", "network"])
def test_t15_alone_or_in_a_batch(D):
    shape = (8, *D.shape)
    start = randn(*shape)*torch.linspace(.5, 1, 8).view(-1, 1, 1, 1)
    run = lambda i: [s.x for s in ascend(D, start[i], gens(i), h0=.05, sigma_end=.1, max_steps=60)][-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore") # the untrained network does not get there
        whole = run(list(range(8)))
        for i in (0, 5): assert torch.allclose(run([i])[0], whole[i], atol=2e-5)
    down = lambda i: [s.x for s in descend(D, start[i], gens(i), [1., .6, .3])][-1]
    assert torch.allclose(down([5])[0], down(list(range(8)))[5], atol=2e-5)


def test_finished_images_stay_as_they_are():
    start = randn(6, 1, 16, 32)*torch.tensor([.05, .3, 1., 1., 1., 1.]).view(-1, 1, 1, 1)
    guided = []
    def guide(x, sigma):
        guided.append((x.clone(), sigma.clone()))
        return x + 100*(sigma == 0).view(-1, 1, 1, 1) # what is done to finished images does not count
    steps = list(ascend(world(), start, gen(), sigma_end=.2, guide=guide))
    ends = torch.stack([s.active for s in steps]).sum(0)
    assert ends[0] == 0 and 0 < ends[1] < ends[2:].min() # each image has its own end
    for s in steps[1:]: assert torch.equal(s.x[0], steps[0].x[0])
    assert guided[0][1].eq(1).all() and guided[1][1][0] == 0 and torch.allclose(guided[1][1][2:], steps[0].sigma[2:])
    single = list(ascend(world(), start, gen(), sigma_end=.2))
    assert torch.allclose(single[-1].x, steps[-1].x) # noise for the others does not depend on who is finished


def test_noise_from_one_generator_does_not_depend_on_who_is_finished():
    "The last image, beside one that finishes at once and beside one that does not"
    start = randn(3, 1, 16, 32)
    run = lambda first: [s.x for s in ascend(world(), start*torch.tensor([first, 1., 1.]).view(-1, 1, 1, 1), gen(1), sigma_end=.2)][-1]
    assert torch.allclose(run(.05)[2], run(1.)[2], atol=1e-5)


def test_cap_and_divergence_end_with_a_warning():
    with pytest.warns(UserWarning, match="2 images are still above sigma_end after max_steps=5"):
        steps = list(ascend(world(), randn(2, 1, 16, 32), gen(), max_steps=5))
    assert len(steps) == 5 and (steps[-1].x[:, :, 1:] == 0).all() and not steps[-1].active.any() # denoised all the same
    class Bad(Denoiser):
        def _denoise(self, x, sigma): return 3*x if x.isfinite().all() else x
    with pytest.warns(UserWarning, match="noisier than twice the start"):
        assert len(list(ascend(Bad(nn.Identity()), randn(2, 1, 4, 4), gen(), h0=.5))) < 10
    class Nan(Denoiser):
        def _denoise(self, x, sigma): return x*float("nan")
    with pytest.warns(UserWarning, match="1 images are noisier"): assert len(list(ascend(Nan(nn.Identity()), randn(1, 1, 4, 4), gen()))) == 1


def test_ancestral_rule_gives_the_data_back():
    x = [s.x for s in descend(data_only(), 10*randn(4000, 1, 1, 8), gen(1), noise_levels(10, .01, 150))][-1]
    assert np.abs(ratios(x) - .98).max() < .07 and abs(ratios(x).mean() - .98) < .025


def test_t19_renoising_halves_the_variance():
    x = [s.x for s in descend(data_only(), torch.zeros(4000, 1, 1, 8), gen(1), np.linspace(1, .03, 100), "renoise")][-1]
    assert np.abs(ratios(x) - [.49, .49, .48, .48, .47, .47, .45, .44]).max() < .04


def test_t18_a_narrow_start_loses_modes():
    "Weights (.5,.3,.2) of a mixture come back from a start wider than the data, and not from sigma_0 = .3"
    means = torch.tensor([-.5, .3, 1.5]).view(3, 1, 1, 1)
    D = MixtureDenoiser(means, 1e-4, torch.tensor([.5, .3, .2]))
    def weights(sigma):
        x = [s.x for s in descend(D, sigma*randn(4000, 1, 1, 1), gen(1), noise_levels(sigma, .01, 100))][-1]
        return torch.bincount((x.view(-1, 1) - means.view(1, 3)).abs().argmin(1), minlength=3)/4000
    wide, narrow = weights(10.), weights(.3)
    assert (wide - torch.tensor([.5, .3, .2])).abs().max() < .03 and narrow[2] < .1


def test_guide_is_applied_before_every_denoising():
    seen = []
    def guide(x, sigma): seen.append(sigma.clone()); return torch.full_like(x, .25)
    D = GaussianDenoiser(torch.zeros(1, 2, 2), torch.ones(1, 2, 2))
    x = [s.x for s in descend(D, torch.zeros(2, 1, 2, 2), gen(), [1., .5], guide=guide)][-1]
    assert torch.allclose(x, torch.full_like(x, .25/1.25)) and [s[0].item() for s in seen] == [1., .5]


@pytest.mark.parametrize("kw", [dict(), dict(method="descend"), dict(method="descend", rule="renoise", sigmas=[1., .5, .2])], ids=str)
def test_sample_depends_on_seed_and_place_alone(kw):
    D = world()
    a = sample(D, 5, bs=2, clip=False, progress=False, **kw)
    assert torch.allclose(a[:3], sample(D, 3, clip=False, progress=False, **kw), atol=1e-6) and a.shape == (5, 1, 16, 32)
    assert not torch.allclose(a, sample(D, 5, seed=1, clip=False, progress=False, **kw))
    assert sample(D, 2, progress=False, **kw).min() >= 0


@pytest.mark.parametrize("levels", [np.array([1., .5, .2]), torch.tensor([1., .5, .2]), (1., .5, .2), iter([1., .5, .2])], ids=["array", "tensor", "tuple", "iterator"])
def test_levels_in_any_form(levels):
    down = lambda sigmas: sample(world(), 2, "descend", sigmas=sigmas, progress=False)
    assert torch.allclose(down(levels), down([1., .5, .2]), atol=1e-6)


def test_samplers_leave_gradients_and_mode_alone():
    D = blind()
    D.train()
    sample(D, 1, "descend", sigmas=[1., .5], progress=False)
    assert D.training and torch.is_grad_enabled()
    walk = ascend(D.eval(), rand(1, 1, 8, 8).requires_grad_(), gen())
    next(walk)
    assert torch.is_grad_enabled()


@pytest.mark.slow
def test_t30_trained_network_reaches_wiener_on_gaussian_data():
    "A blind U-Net trained on Gaussian images comes within 5% of the best possible error at sigma .5 and .25"
    torch.manual_seed(0)
    f = torch.fft.fftfreq(16)
    amp = 1/(f[:, None]**2 + f[None]**2 + .004)**.5
    draw = lambda n, g: .5 + .1*torch.fft.ifft2(torch.fft.fft2(torch.randn(n, 1, 16, 16, generator=g))*amp/amp.pow(2).mean().sqrt()).real
    model, g = Blind(BlindUNet(channels=1, widths=(8, 16, 32, 64), depths=(2, 3, 2)), (1, 16, 16)), gen()
    opt, n = torch.optim.Adam(model.parameters(), 1e-2), 3000
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, 1e-2, n)
    for _ in range(n):
        _, sigma, z = model.draw((32, 1, 16, 16), g)
        loss = model(draw(32, g), sigma, z).mean()
        opt.zero_grad(); loss.backward(); opt.step(); sched.step()
    x, lam = draw(500, gen(1)), .01*(amp/amp.pow(2).mean().sqrt()).pow(2)
    for s in (.25, .5):
        with torch.no_grad(): mse = (denoiser(model)(x + s*randn(*x.shape, seed=2)) - x).pow(2).mean()
        assert mse/(lam*s**2/(lam + s**2)).mean() < 1.05


# --- bad input

D, told, x = blind(), GaussianDenoiser(torch.zeros(1, 8, 8), torch.ones(1, 8, 8)), rand(2, 1, 8, 8)
ddgm = denoiser(DDGM(unet(), Schedule.linear(50), (1, 8, 8)))
BAD = {
    "T13 sigma in 0..255 units": (lambda: D(x, 25.), "sigma: 25 .*divided by 255"),
    "negative sigma": (lambda: D(x, -.1), "sigma: -0.1"),
    "sigma nan": (lambda: told(x, float("nan")), "sigma: nan"),
    "sigma beyond the chain": (lambda: ddgm(x, 1e4), "sigma: 1e.04 .*made for"),
    "one sigma for two images": (lambda: told(x, torch.ones(1)), "sigma: shape"),
    "not blind, without sigma": (lambda: told(x), "sigma: .*not blind"),
    "not blind, reading without sigma": (lambda: ddgm.phi(x), "sigma: .*not blind"),
    "unknown place": (lambda: D.averages(x, taps=("middle",)), "taps: .*middle.*'mid'"),
    "a string for places": (lambda: D.averages(x, taps="mid"), "taps: .*tuple"),
    "no places": (lambda: ddgm.maps(x, .1, ()), "taps"),
    "phi of an oracle": (lambda: told.phi(x, .1), "taps: .*mid"),
    "T29 odd sides": (lambda: D(torch.zeros(1, 1, 28, 28)), "multiples of 8"),
    "no model": (lambda: denoiser("net"), "model: a str"),
    "foreign network without its kind": (lambda: denoiser(Tiny()), "predicts: None"),
    "foreign place that is not there": (lambda: denoiser(Tiny(), predicts="clean", taps=dict(mid="c")), r"taps: Tiny has no modules \['c'\]"),
    "scheduler of another kind": (lambda: denoiser(Tiny(), scheduler=object()), "scheduler: .*alphas_cumprod"),
    "covariance of another size": (lambda: GaussianDenoiser(torch.zeros(1, 2, 2), torch.eye(3)), "var: shape"),
    "negative variance": (lambda: GaussianDenoiser(torch.zeros(1, 2, 2), -torch.ones(1, 2, 2)), "var: -1"),
    "blind without empty directions": (lambda: GaussianDenoiser(torch.zeros(1, 2, 2), torch.ones(1, 2, 2), blind=True), "blind"),
    "weights that do not sum to one": (lambda: MixtureDenoiser(x, 0., torch.tensor([.5, .6])), "weights"),
    "linear denoiser of images in [-1,1]": (lambda: GaussianDenoiser.fit(2*x - 1), r"images: values from -.*\[0, 1\]"),
    "psnr of images in [-1,1]": (lambda: psnr_curve(D, 2*x - 1), r"images: values from -.*\[0, 1\]"),
    "psnr of nan": (lambda: psnr_curve(D, x*float("nan")), "images: holds NaN"),
    "unknown law": (lambda: Blind(D.net, (1, 8, 8), law="cosine"), "law: one of"),
    "log law from 0": (lambda: Blind(D.net, (1, 8, 8), law="log"), "sigmas: .*lo > 0"),
    "training noise in 0..255 units": (lambda: Blind(D.net, (1, 8, 8), (0., 255.)), "sigmas: .*data units"),
    "T29 training on odd sides": (lambda: Blind(D.net, (1, 28, 28)), "shape: .*pad_to=8"),
    "training on colour": (lambda: Blind(D.net, (3, 8, 8)), "net: made for 1 channels"),
    "training on [-1,1]": (lambda: denoise_learner(image_dls("digits", device="cpu"), Blind(D.net, (1, 8, 8))), r"\(0.0, 1.0\).*\(-1.0, 1.0\)"),
    "step of 0": (lambda: next(ascend(D, x, gen(), h0=0)), "h0: a number above 0"),
    "beta above 1": (lambda: next(ascend(D, x, gen(), beta=1.5)), "beta: a number above 0"),
    "start of nan": (lambda: next(ascend(D, x*float("nan"), gen())), "x: holds NaN"),
    "too few generators": (lambda: next(ascend(D, x, gens([0]))), "generator: 1 for 2 images"),
    "rising levels": (lambda: next(descend(D, x, gen(), [.1, .5])), "sigmas: falling"),
    "a level of 0": (lambda: next(descend(D, x, gen(), [1., 0.])), "sigmas: falling"),
    "unknown rule": (lambda: next(descend(D, x, gen(), [1.], "exact")), "rule: one of"),
    "unknown sampler": (lambda: sample(D, 1, "langevin"), "method: one of"),
    "no images": (lambda: sample(D, 0), "n, bs: at least 1"),
    "sample of unknown size": (lambda: sample(denoiser(D.net), 1), "shape: .*give"),
    "levels upside down": (lambda: noise_levels(.1, 1.), "hi, lo, n"),
    "unknown part": (lambda: denoiser(DAED(unet(), unet(), Schedule.linear(50).merge_first(5), (1, 8, 8)), part="all"), "part: one of"),
}


@pytest.mark.parametrize("call, message", BAD.values(), ids=BAD)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message): call()


def test_control_without_a_way_to_start_anew():
    class Bare(nn.Module):
        def __init__(self): super().__init__(); self.w = nn.Parameter(torch.ones(1))
        def forward(self, x): return self.w*x
    with pytest.raises(ValueError, match="D: Bare has parameters.*reset_parameters"): untrained(denoiser(Bare(), predicts="clean"))
