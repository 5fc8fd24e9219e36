"What a blind denoiser is trained on, and how"

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from scipy.integrate import quad
from torch import nn

from denoise_study.core import (
    denoise_learner,
    describe,
    image_dls,
    load_checkpoint,
    save_checkpoint,
)
from denoise_study.denoiser import Blind, BlindUNet, denoiser, halving, noise_law
from helpers import gen, randn
from helpers_denoiser import SMALL


def test_noise_of_a_batch_follows_the_square_root_law():
    "On [0,1]: mean 1/3, E sigma^2 1/5, quantiles .01 .25 .81; unit noise times sigma"
    model = Blind(BlindUNet(**SMALL), (1, 8, 8))
    w, sigma, z = model.draw((40_000, 1, 2, 2), gen())
    assert (w == 1).all() and sigma.shape == (40_000,) and z.std() == pytest.approx(1, abs=0.01)
    assert sigma.mean() == pytest.approx(1 / 3, abs=0.005) and sigma.pow(2).mean() == pytest.approx(
        1 / 5, abs=0.005
    )
    assert np.allclose(sigma.quantile(torch.tensor([0.1, 0.5, 0.9])), [0.01, 0.25, 0.81], atol=0.01)
    seen = {}
    model.net = type("Net", (nn.Module,), dict(forward=lambda self, x: seen.setdefault("x", x)))()
    losses = model(torch.full((40_000, 1, 2, 2), 0.5), sigma, z)
    assert (seen["x"] - 0.5).pow(2).mean() == pytest.approx(
        1 / 5, abs=0.006
    )  # not 255 times that, not four times
    assert torch.allclose(
        losses, (sigma.view(-1, 1, 1, 1) * z).pow(2).sum((1, 2, 3)), rtol=1e-3, atol=1e-5
    )  # a sum over pixels


@pytest.mark.parametrize("law, half", [("sqrt", 0.25), ("uniform", 0.5), ("log", 0.1)])
def test_noise_laws(law, half):
    lo = 0.01 if law == "log" else 0.0
    q = noise_law(law, torch.tensor([0.0, 0.5, 1.0]), lo, 1.0)
    assert np.allclose(q, [lo, half, 1.0], atol=1e-6)


@pytest.mark.parametrize("law", ["sqrt", "uniform", "log"])
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_weights_are_a_power_of_the_noise_and_have_mean_1(law, power):
    lo, hi = 0.01, 1.0
    model = Blind(BlindUNet(**SMALL), (1, 8, 8), (lo, hi), law, power)
    weights, sigma, _ = model.draw((400_000, 1, 1, 1), gen())
    assert torch.allclose(weights * sigma**power, (weights * sigma**power)[:1], rtol=1e-4)
    density = dict(sqrt=lambda s: s**-0.5, uniform=lambda s: 1.0, log=lambda s: 1 / s)[law]
    mass = quad(density, lo, hi)[0]
    mean = quad(lambda s: density(s) * s**-power, lo, hi)[0] / mass  # by integration over sigma
    assert 1 / (weights * sigma**power)[0].item() == pytest.approx(mean, rel=2e-3)
    # the standard error of the mean of heavy weights is what 400,000 draws leave
    assert weights.mean().item() == pytest.approx(1, abs=5 * weights.std().item() / 400_000**0.5)


def test_power_0_is_the_sum_of_the_paper():
    model = Blind(BlindUNet(**SMALL), (1, 8, 8))
    weights, sigma, _ = model.draw((50, 1, 8, 8), gen())
    assert torch.equal(weights, torch.ones(50))
    # a state of the version before has no power, and goes on
    assert "power" not in describe(model)["args"]


def test_halving_and_resume(tmp_path):
    "The rate over a training, and a training that is killed and resumed: bit-identical"
    torch.set_num_threads(1)

    class Kill(Callback):
        order = 99

        def after_batch(self):
            if self.training and self.learn.train_iter == 7:
                raise KeyboardInterrupt

    def learner(folder, cbs=()):
        torch.manual_seed(0)
        model = Blind(BlindUNet(channels=1, widths=(4, 6), depths=(1, 1, 2)), (1, 8, 8))
        dls = image_dls("digits", bs=256, range=(0.0, 1.0), device="cpu", valid=10)
        learn = denoise_learner(dls, model, ema=0.9, bf16=True, folder=tmp_path / folder, cbs=cbs)
        learn.resume.steps = 1
        return learn

    def fit(learn):
        with learn.no_bar(), learn.no_logging():
            learn.fit(2, cbs=halving(1e-3))

    whole = learner("whole")
    fit(whole)
    n = len(whole.recorder.lrs)
    assert np.allclose(
        whole.recorder.lrs, [1e-3 * 0.5 ** (10 * i // n) for i in range(n)], rtol=1e-6
    )
    with pytest.raises(KeyboardInterrupt):
        fit(learner("killed", [Kill()]))
    again = learner("killed")
    fit(again)
    for a, b in zip(whole.model.state_dict().values(), again.model.state_dict().values()):
        assert torch.equal(a, b)
    for a, b in zip(whole.ema_model.state_dict().values(), again.ema_model.state_dict().values()):
        assert torch.equal(a, b)


def test_checkpoint_round_trip(tmp_path):
    model = Blind(BlindUNet(**SMALL), (1, 8, 8), (0.01, 2.0), "log", 1.0)
    save_checkpoint(tmp_path / "m.safetensors", model)
    loaded = load_checkpoint(tmp_path / "m.safetensors")
    assert (
        loaded.config["law"] == "log"
        and loaded.power == 1.0
        and loaded.sigmas == (0.01, 2.0)
        and denoiser(loaded).name == denoiser(model).name
    )


@pytest.mark.slow
def test_trained_network_reaches_wiener_on_gaussian_data():
    "Trained on Gaussian images it comes within 5% of the best error at sigma .5 and .25"
    torch.manual_seed(0)
    f = torch.fft.fftfreq(16)
    amp = 1 / (f[:, None] ** 2 + f[None] ** 2 + 0.004) ** 0.5
    draw = lambda n, g: (
        0.5
        + 0.1
        * torch.fft.ifft2(
            torch.fft.fft2(torch.randn(n, 1, 16, 16, generator=g)) * amp / amp.pow(2).mean().sqrt()
        ).real
    )
    model, g = (
        Blind(BlindUNet(channels=1, widths=(8, 16, 32, 64), depths=(2, 3, 2)), (1, 16, 16)),
        gen(),
    )
    opt, n = torch.optim.Adam(model.parameters(), 1e-2), 3000
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, 1e-2, n)
    for _ in range(n):
        _, sigma, z = model.draw((32, 1, 16, 16), g)
        loss = model(draw(32, g), sigma, z).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        sched.step()
    x, lam = draw(500, gen(1)), 0.01 * (amp / amp.pow(2).mean().sqrt()).pow(2)
    for s in (0.25, 0.5):
        with torch.no_grad():
            mse = (denoiser(model)(x + s * randn(*x.shape, seed=2)) - x).pow(2).mean()
        assert mse / (lam * s**2 / (lam + s**2)).mean() < 1.05
