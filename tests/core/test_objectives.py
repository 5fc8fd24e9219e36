"Objectives: averages are what they say, and noise belongs to the step"

import pytest
import torch
from fastai.callback.core import Callback
from helpers import digits, quiet_fit
from helpers_training import Linear

from denoise_study import load_pretrained
from denoise_study.core import AdamW, averaged, Compiled, denoise_learner, EMA, step_generator
from denoise_study.core import image_dls, weighted_mean
from denoise_study.denoiser import Blind, BlindUNet


class Keep(Callback):
    "Remembers the weights after each step"

    order = 99

    def __init__(self):
        self.weights = []

    def after_batch(self):
        if self.training:
            self.weights.append(self.learn.model.w.detach().clone())


def test_ema_is_the_weighted_sum_of_all_weights():
    for warmup in (False, True):
        keep = Keep()
        learn = denoise_learner(digits(256), Linear(), ema=None, cbs=[EMA(0.9, warmup), keep])
        w0 = learn.model.w.detach().clone().double()
        quiet_fit(learn)
        expected = w0
        for k, w in enumerate(keep.weights, 1):
            r = min(0.9, (1 + k) / (10 + k)) if warmup else 0.9
            expected = r * expected + (1 - r) * w
        torch.testing.assert_close(averaged(learn).w.double(), expected, rtol=1e-5, atol=1e-6)
    k = len(keep.weights)
    plain = 0.9**k * w0 + 0.1 * sum(
        0.9 ** (k - 1 - j) * w.double() for j, w in enumerate(keep.weights)
    )
    assert not torch.allclose(expected, plain)  # the warm-up makes a difference this early


def test_rate_of_the_average():
    assert [EMA(0.5).rate(k) for k in (1, 8, 9)] == [2 / 11, 0.5, 0.5]
    assert EMA(0.5, warmup=False).rate(1) == 0.5
    with pytest.raises(ValueError, match=r"decay: a number in \[0,1\) is needed, got 1"):
        EMA(1)


def test_step_noise_depends_on_seed_and_step_only():
    def draw(*args, **kwargs):
        return torch.randn(4, generator=step_generator(*args, **kwargs))

    assert torch.equal(draw(1, 2), draw(1, 2))
    assert len({tuple(draw(*a).tolist()) for a in ((1, 2), (2, 1), (1, 3), (12, 0), (1, 20))}) == 5
    assert not torch.equal(draw(1, 2), draw(1, 2, stream="valid"))


def test_learner_takes_the_steps_of_a_plain_loop():
    learn = denoise_learner(digits(256), Linear(), lr=0.01, ema=None, seed=3)
    with learn.no_bar(), learn.no_logging():
        learn.fit(2)

    model = Linear()
    opt = AdamW(model.parameters(), lr=0.01)
    dls = digits(256)
    step = 0
    for _ in range(2):
        for x0, _ in dls.train:
            w, z = model.draw(x0.shape, step_generator(3, step))
            weighted_mean(model(x0, z), w).backward()
            opt.step()
            opt.zero_grad()
            step += 1
    assert torch.equal(learn.model.w, model.w) and learn.objective_cb.step == step


@pytest.mark.parametrize("name", ["ddgm-digits", "daed-digits", "blind-digits"])
def test_a_model_that_is_called_like_a_denoiser_says_what_to_call(name):
    model = load_pretrained(name)
    for given in [(), (torch.zeros(1, *model.shape),)]:
        with pytest.raises(TypeError, match="sample|x0"):
            model(*given)
    with pytest.raises(TypeError, match=r"`model.sample\(n\)` makes .* `denoiser\(model\)\(x, "):
        model(torch.zeros(1, *model.shape))


class Interpreted(Compiled):
    "Compiled without a compiler: what is compiled counts its calls"

    calls = 0

    def before_fit(self):
        forward = self.model.forward

        def counted(*args):
            self.calls += 1
            return forward(*args)

        self.fast = counted


def test_only_training_goes_through_the_compiled_model():
    plain, cb = Linear(), Interpreted()
    learns = [
        denoise_learner(digits(256), model, cbs=cbs)
        for model, cbs in ((plain, None), (Linear(), cb))
    ]
    for learn in learns:
        quiet_fit(learn)
    learn = learns[1]
    assert cb.calls == learn.train_iter  # validation and the average call the plain one
    assert "forward" not in vars(learn.model) and "forward" not in vars(averaged(learn))
    assert torch.equal(learn.model.w, plain.w)
    assert torch.equal(averaged(learn).w, averaged(learns[0]).w)


def test_without_a_compiler_nothing_begins(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    learn = denoise_learner(digits(256), Linear(), compiled=True)
    with pytest.raises(RuntimeError, match="compiled: a C.. compiler .* none was found"):
        quiet_fit(learn)
    assert learn.objective_cb.step == 0


@pytest.mark.slow
def test_compiled_training_is_the_plain_one():
    "Through the real compilers, a minute; equal but for the order of sums"
    losses = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = Blind(BlindUNet(channels=1, widths=(8, 16), depths=(1, 1, 2)), (1, 8, 8))
        dls = image_dls("digits", bs=256, range=(0, 1), device="cpu")
        learn = denoise_learner(dls, model, lr=1e-3, ema=None, compiled=compiled)
        quiet_fit(learn)
        losses.append(torch.tensor(learn.recorder.losses))
    assert torch.allclose(losses[0], losses[1], rtol=1e-3)
