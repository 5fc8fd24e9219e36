"Networks that are told a time, against exact answers and diffusers"

import pytest
import torch
from torch import nn

from denoise_study.denoiser import denoiser, GaussianDenoiser
from denoise_study.diffusion import DDGM, GaussianNet, Schedule
from helpers import rand
from helpers_denoiser import Exact, hooks, unet
from helpers_foreign import diffusers_unet


SCHEDULES = {
    "linear": lambda: (Schedule.linear(100), Schedule.linear(100)),
    "cosine, respaced": lambda: (Schedule.cosine(100), Schedule.cosine(100).respace(20)),
}


@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_gaussian_ddgm_is_wieners_filter(make, nearest, scale):
    "Data of variance .25 in [-1,1] have .0625 in [0,1]; noise sigma in [0,1] is 2 sigma there"
    full, sched = make()
    D = denoiser(
        DDGM(GaussianNet(full, 0.25, scale), sched, (1, 4, 4), time_scale=scale),
        clip=False,
        nearest=nearest,
    )
    exact, x = (
        GaussianDenoiser(torch.full((1, 4, 4), 0.5), torch.full((1, 4, 4), 0.0625)),
        2 * rand(6, 1, 4, 4) - 0.5,
    )
    t = torch.tensor([1, 2, 5, 10, 15, 20])
    sigma = ((1 - sched.alpha_bar[t]) / sched.alpha_bar[t]).sqrt().float() / 2
    assert torch.allclose(D(x, sigma), exact(x, sigma), atol=2e-5)
    assert torch.allclose(
        D._label(2 * sigma), ((sched.steps[t] - 1) * scale).float(), atol=2e-3 * scale
    )


def test_labels_between_steps():
    D = denoiser(DDGM(unet(), Schedule.linear(100), (1, 8, 8)))
    log_s = D.log_s[[30, 31]]
    s = torch.stack([log_s[0], log_s.mean(), log_s[1]]).exp()
    assert torch.allclose(D._label(s), torch.tensor([30.0, 30.5, 31.0]), atol=1e-3)
    assert D._label(torch.tensor([0.0, 1e-9, 1e9])).tolist() == [
        0.0,
        0.0,
        99.0,
    ]  # beyond the table: its ends
    near = denoiser(DDGM(unet(), Schedule.linear(100), (1, 8, 8)), nearest=True)
    assert set((near._label(torch.logspace(-1, 1, 50)) % 1).tolist()) == {0.0}


@pytest.mark.parametrize("kind", ["eps", "x0", "v", "score"])
def test_every_way_of_speaking(kind):
    sched = Schedule.linear(100)
    D = denoiser(DDGM(Exact(sched, 0.25, kind), sched, (1, 4, 4), pred=kind), clip=False)
    sigma, x = D.log_s[[3, 30, 60]].exp().float() / 2, rand(3, 1, 4, 4)
    exact = GaussianDenoiser(torch.full((1, 4, 4), 0.5), torch.full((1, 4, 4), 0.0625))
    assert torch.allclose(D(x, sigma), exact(x, sigma), atol=1e-4)


def test_ddgm_denoiser_is_the_models_own_estimate():
    torch.manual_seed(0)
    m = DDGM(unet(learn_sigma=True), Schedule.cosine(50), (1, 8, 8), var="learned").eval()
    for p in m.net.parameters():
        nn.init.normal_(p, std=0.05)
    D, x, t = denoiser(m), rand(2, 1, 8, 8), 20
    xt = m.sched.q_sample(2 * x - 1, t, torch.zeros_like(x))  # x carries its noise already
    with torch.no_grad():
        assert torch.allclose(
            D(x, D.log_s[t - 1].exp().item() / 2), (m.p_mean_var(xt, t)[2] + 1) / 2, atol=1e-5
        )


@pytest.mark.parametrize(
    "kw",
    [{}, dict(updown=True), dict(conv_resample=False), dict(mult=(1, 2, 2), n_blocks=1, attn=())],
)
def test_places_of_the_unet_are_before_any_change_of_resolution(kw):
    D, levels = (
        denoiser(DDGM(unet(**kw), Schedule.linear(50), (1, 16, 16))),
        len(kw.get("mult", (1, 2))),
    )
    with torch.no_grad():
        maps = D.maps(rand(2, 1, 16, 16), 0.3, D.taps)
    for i in range(1, levels + 1):
        for name in (f"enc{i}.in", f"enc{i}", f"dec{i}.in", f"dec{i}"):
            assert maps[name].shape[2] == 16 // 2 ** (i - 1), name
        assert (
            maps[f"enc{i}"].shape[1] == maps[f"dec{i}"].shape[1] == D.net.config["mult"][i - 1] * 32
        )
    assert torch.equal(maps["mid.in"], maps[f"enc{levels}"]) and hooks(D.net) == 0
    assert torch.allclose(
        D.averages(rand(2, 1, 16, 16), 0.3)["mid"], maps["mid"].mean((2, 3)), atol=1e-6
    )


def test_reading_stops_after_the_middle():
    D = denoiser(DDGM(unet(), Schedule.linear(50), (1, 8, 8)))

    def fail(*a):
        raise AssertionError("the way up was computed")

    handle = D.net.up[0].register_forward_pre_hook(fail)
    D.phi(rand(1, 1, 8, 8), 0.3)
    with pytest.raises(AssertionError):
        D(rand(1, 1, 8, 8), 0.3)
    handle.remove()


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_diffusers_model_against_the_schedulers_own_formula(kind):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    net = diffusers_unet()
    scheduler = diffusers.DDPMScheduler(100, prediction_type=kind, clip_sample=False)
    D, x = denoiser(net, scheduler=scheduler, clip=False), 3 * rand(2, 1, 16, 16) - 1
    assert D.shape == (1, 16, 16) and D.multiple == 2
    for t in (0, 7, 60, 99):
        ab = scheduler.alphas_cumprod[t]
        xt = ab.sqrt() * (2 * x - 1)
        with torch.no_grad():
            want = scheduler.step(net(xt, t).sample, t, xt).pred_original_sample
        with torch.no_grad():
            got = D(x, ((1 - ab) / ab).sqrt().item() / 2)
        assert torch.allclose(2 * got - 1, want, atol=1e-3 * want.abs().max().item()), t
    maps = D.maps(x, 0.3, D.taps)
    assert [maps[k].shape[1:] for k in ("enc1", "enc2", "mid", "dec2", "dec1")] == [
        (8, 16, 16),
        (16, 8, 8),
        (16, 8, 8),
        (16, 8, 8),
        (8, 16, 16),
    ]
    assert hooks(net) == 0
