"One walk for all times against the loop over them"

import pytest
from helpers import close, images, sweep, trained
from helpers_ddgm import Spy

from denoise_study.core import evaluating, image_generators, image_noise, mae, ms_ssim
from denoise_study.daed import DAED
from denoise_study.diffusion import ancestral, DDGM, GaussianNet, Schedule, WALK_BLOCK


@pytest.mark.parametrize("kind", ["DDGM", "learned variance", "DAED"])
def test_sweep_equals_the_loop(kind):
    "Deterministic ways as `reconstruct` walks them; ancestral with noise of (seed, image, step)"
    model = trained()
    if kind == "learned variance":
        model = trained(2, loss="vlb", var="learned")
    if kind == "DAED":
        model = DAED.from_ddgm(model, 4, trained().net.requires_grad_(True))
    x, eps, ts = images(5), image_noise(images(5), 3), [1, 2, 7, 20]
    errors = sweep(model, x, ts, ("ancestral", "ddim", "mean"), seeds=(3,)).set_index(["how", "t"])
    for t in ts:
        for how in ("ddim", "mean"):
            back = model.reconstruct(x, t, how, eps=eps)
            close(errors.mae[how, t].to_numpy(), mae(back, x, range=model.range), atol=2e-6)
            similar = ms_ssim(back.clamp(-1, 1), x, range=model.range)
            close(errors.ms_ssim[how, t].to_numpy(), similar, atol=1e-5)
        xt = model.sched.q_sample(x, t, eps)
        with evaluating(model):
            for s in range(t, 0, -1):
                step = int(model.sched.steps[s])
                noise = image_generators(3, range(5), stream=f"back 0 {step}")
                xt = next(ancestral(model, xt, noise, start=s, stop=s - 1))[1]
        mse = (xt - x).square().mean((1, 2, 3))
        close(errors.mse["ancestral", t].to_numpy(), mse, atol=1e-5)


def test_neither_batches_nor_other_images_change_the_noise():
    "A set that is longer than a block that walks together, with a network that treats pixels alone"
    sched = Schedule.linear(24)
    model = DDGM(GaussianNet(sched, 0.25), sched, (1, 8, 8))
    ways = "ancestral", "ddim", "mean", "average", "noisy"
    x = images(WALK_BLOCK + 5)
    whole = sweep(model, x, [3, 9], ways, draws=2)
    for n, bs in ((WALK_BLOCK + 5, 50), (WALK_BLOCK + 1, 256), (3, 256)):
        some = sweep(model, x[:n], [3, 9], ways, draws=2, bs=bs)
        keys = ["how", "t", "image"]
        both = some.merge(whole[[*keys, "mse"]], on=keys, suffixes=("", "_whole"))
        assert len(both) == len(some) == 2 * len(ways) * n
        close(both.mse.to_numpy(), both.mse_whole.to_numpy(), atol=1e-7)


@pytest.mark.parametrize(
    "hows,calls,seen",
    [
        (("ancestral",), 20, 27),
        (("ancestral", "ddim", "mean"), 20, 2 * 27 - 3),
        (("mean",), 3, 3),
        (("noisy",), 0, 0),
        (("average", "ancestral"), 20, 4 * 27 - 9),
    ],
)
def test_one_walk_for_all_times(hows, calls, seen):
    "max(ts) calls, not the sum of ts; the first answer at each t serves all ways back"
    spy = Spy()
    model = DDGM(spy, Schedule.linear(50), (1, 8, 8))
    sweep(model, images(6), [2, 5, 20], hows, draws=4)
    assert (spy.calls, spy.images) == (calls, 6 * seen)
    spy.seen.clear()
    sweep(model, images(6), [2, 5, 20], hows, draws=4, seeds=(0, 1), bs=6)  # bounded memory
    assert spy.calls == 2 * seen


def test_walk_speaks_original_times_and_splits_dispatch():
    "A DAED: its own chain, the DDGM's times on the axis, one DAE call for all chains"
    ddgm = DDGM(Spy(), Schedule.linear(50), (1, 8, 8))
    daed = DAED.from_ddgm(ddgm, 10, Spy())
    ways = "ancestral", "ddim", "mean", "noisy"
    errors = sweep({"DDGM": ddgm, "DAED": daed}, images(4), [1, 6], ways)
    assert daed.dae.calls == 1 and daed.dae.labels == [9]
    assert sorted(daed.net.labels) == [10, 11, 12, 13, 14]
    own = errors[errors.model == "DAED"]
    assert own.kind.unique().tolist() == ["DAED"] and own.step.unique().tolist() == [10, 15]
    assert own.share.unique().tolist() == [0.2, 0.3]
    first = own[(own.t == 1) & (own.how != "noisy")]
    first = first.pivot(index="image", columns="how", values="mae")  # one result at t = 1
    for how in ("ancestral", "ddim"):
        close(first[how].to_numpy(), first["mean"].to_numpy(), atol=1e-6)


def test_the_same_corruption_at_the_same_level_whatever_the_chain():
    ddgm = DDGM(Spy(), Schedule.linear(50), (1, 8, 8))
    models = {"DDGM": ddgm, "DAED": DAED.from_ddgm(ddgm, 10, Spy())}
    both = sweep(models, images(4), level=float(1 - ddgm.sched.alpha_bar[10]), hows=("noisy",))
    assert both.t.unique().tolist() == [10, 1]
    assert both[both.t == 10].mae.tolist() == both[both.t == 1].mae.tolist()


def test_ddgm_and_daed_share_the_noise_of_common_steps():
    "n = 1: the same chain with a copy of the network at the first step"
    model = trained()
    daed = DAED.from_ddgm(model, 1, trained().net)
    a, b = (sweep(m, images(4), [1, 9], ("ancestral", "ddim")) for m in (model, daed))
    close(a.mae.to_numpy(), b.mae.to_numpy(), atol=1e-6)
