"""Reconstruction and the log-SNR: known numbers, the Gaussian oracle, the batched walk against
the loop"""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers_daed import HO, Spy, WIDE, close, draw, gauss, gen, images, sweep, trained
from sklearn.covariance import ledoit_wolf_shrinkage

from denoise_study.core import (
    evaluating,
    load_checkpoint,
    mae,
    ms_ssim,
    save_checkpoint,
    step_generator,
)
from denoise_study.daed import DAED, transfer_table
from denoise_study.diffusion import DDGM, GaussianNet, HOWS, LinearDenoiser, METHODS, Schedule
from denoise_study.diffusion import image_noise, log_snr_curves, plot_sweep, snr_crossing, summarise
from denoise_study.diffusion.reconstruction import _measure

SCHEDULES = {
    "Ho 500": Schedule.linear(500),
    "Ho 1000": HO,
    "repo 500": Schedule.linear(500, start=1e-3),
    "repo 1000": Schedule.linear(1000, start=1e-3),
    "cosine 1000": Schedule.cosine(1000),
    "cosine 4000": Schedule.cosine(4000),
}


@pytest.mark.parametrize(
    "name,steps,shares",
    [
        ("Ho 500", (130, 113, 74), (26.0, 22.6, 14.8)),
        ("Ho 1000", (260, 224, 147), (26.0, 22.4, 14.7)),
        ("repo 500", (112, 94, 56), (22.4, 18.8, 11.2)),
        ("repo 1000", (223, 188, 112), (22.3, 18.8, 11.2)),
        ("cosine 1000", (497, 436, 293), (49.7, 43.6, 29.3)),
        ("cosine 4000", (1985, 1741, 1171), (49.6, 43.5, 29.3)),
    ],
)
def test_crossings_of_six_schedules(name, steps, shares):
    "Where the log-SNR falls below 0, for a power of 1, FashionMNIST's and CIFAR-10's"
    found = [snr_crossing(SCHEDULES[name], p) for p in (1.0, 0.682, 0.256)]
    assert tuple(c.t for c in found) == steps
    close([100 * c.share for c in found], shares, atol=0.05)
    table = log_snr_curves(
        {name: SCHEDULES[name]}, {p: torch.tensor([p]) for p in (1.0, 0.682, 0.256)}
    )
    assert tuple(g.t[g.log_snr < 0].min() for _, g in table.groupby("set", sort=False)) == steps


def test_share_of_the_fall_in_the_first_tenth():
    """Note 1.1: .34-.37, .28-.31, .21-.23 in the first tenth; the cosine schedule loses .53-.55
    in the last"""
    within = dict(Ho=(0.335, 0.375), repo=(0.275, 0.315), cosine=(0.205, 0.235))
    for name, s in SCHEDULES.items():
        c, (low, high) = snr_crossing(s), within[name.split()[0]]
        assert low < c.first_tenth < high and sum(c.fall) == pytest.approx(1)
        assert (0.525 < c.last_tenth < 0.555) == name.startswith("cosine")


def test_image_enters_the_log_snr_as_a_constant():
    """Change from step to step bit-identical for all data; band constant in t; log of the mean
    of each image, then mean and std"""
    x = images(7, seed=1)
    x[0] = x[0] * 0.1
    table = log_snr_curves({"a": HO, "b": Schedule.cosine(100)}, {"x": x, "half": x / 2})
    assert (
        table[table.t > 1].groupby(["schedule", "t"]).change.nunique() == 1
    ).all() and table.change[table.t == 1].isna().all()
    assert (table.groupby(["schedule", "set"])["std"].nunique() == 1).all()
    one = table[(table.schedule == "a") & (table.set == "x")].set_index("t")
    for t in (1, 500, 1000):
        each = [
            math.log(float(HO.alpha_bar[t] / (1 - HO.alpha_bar[t]) * i.double().pow(2).mean()))
            for i in x
        ]
        close([one.log_snr[t], one["std"][t]], [np.mean(each), np.std(each)], rtol=1e-6)
    assert (
        abs(one.log_snr[500] - math.log(float(HO.snr(float(x.square().mean()))[500]))) > 0.1
    )  # not the log of the overall mean
    # pixels that are 0, of which the mean of logs would make -infinity, do no harm
    assert np.isfinite(
        log_snr_curves(HO, torch.tensor([0.0, 1.0]).repeat(2, 1, 2, 1)).log_snr
    ).all()


def test_never_crossing_is_an_answer():
    c = snr_crossing(Schedule.linear(1000, end=1e-4), 1.0)
    assert c.t is None and c.share is None


def test_sample_to_mean_ratio_of_a_perfect_model():
    """Gaussian oracle, s2 = .25 from n = 98: MMSE .076491; ancestral MSE .15288 exact (ratio
    1.9987), .15312 large, .15000 small; MAE ratio 1.414"""
    x = draw(256, 32)
    models = {"exact": exact_variance(), "large": gauss(n=32), "small": gauss(n=32, var="small")}
    errors = sweep(models, x, [98], ("ancestral", "mean"), scale=WIDE)
    table = summarise(errors).set_index(["model", "how"])
    close(table.mse["large", "mean"], 0.076491, rtol=0.006)
    close([table.mse[k, "ancestral"] for k in models], [0.15288, 0.15312, 0.15000], rtol=0.006)
    close(table.mse["exact", "ancestral"] / table.mse["exact", "mean"], 1.9987, rtol=0.008)
    close(table.mae["exact", "ancestral"] / table.mae["exact", "mean"], 1.414, rtol=0.005)
    # with the noise shared, the differences between the variances are far more accurate than any of
    # the values
    close(
        table.mse["small", "ancestral"] / table.mse["exact", "ancestral"],
        0.15000 / 0.15288,
        rtol=1.5e-3,
    )
    close(
        table.mse["large", "ancestral"] / table.mse["exact", "ancestral"],
        0.15312 / 0.15288,
        rtol=1.5e-3,
    )
    ratio = transfer_table(errors).set_index(["model", "how"]).mse_ratio
    close(ratio["exact", "ancestral"], 1.9987, rtol=0.008)


def test_average_of_draws_tends_to_the_mean():
    "K draws: MMSE (1 + 1/K)"
    table = summarise(
        sweep(gauss(n=32), draw(64, 32), [98], ("mean", "average"), draws=4, scale=WIDE)
    ).set_index("how")
    close(table.mse["average"] / table.mse["mean"], 1.25, rtol=0.01)
    assert table.calls["average"] == 4 * 98


@pytest.mark.parametrize("kind", ["DDGM", "learned variance", "DAED"])
def test_sweep_equals_the_loop(kind):
    """Deterministic ways as `reconstruct` walks them; ancestral as a loop over t with the noise
    of (seed, step)"""
    model = trained(2, loss="vlb", var="learned") if kind == "learned variance" else trained()
    if kind == "DAED":
        model = DAED.from_ddgm(model, 4, trained().net.requires_grad_(True))
    x, eps, ts = images(5), image_noise(images(5), 3), [1, 2, 7, 20]
    errors = sweep(model, x, ts, ("ancestral", "ddim", "mean"), seeds=(3,)).set_index(["how", "t"])
    for t in ts:
        for how in ("ddim", "mean"):
            back = model.reconstruct(x, t, how, eps=eps)
            close(errors.mae[how, t], mae(back, x, range=model.range), atol=2e-6)
            close(
                errors.ms_ssim[how, t], ms_ssim(back.clamp(-1, 1), x, range=model.range), atol=1e-5
            )
        xt = model.sched.q_sample(x, t, eps)
        with evaluating(model):
            for s in range(t, 0, -1):
                noise = step_generator(3, int(model.sched.steps[s]), "cpu", "back 0 0")
                xt = next(METHODS["ancestral"](model, xt, noise, start=s, stop=s - 1))[1]
        close(errors.mse["ancestral", t], (xt - x).square().mean((1, 2, 3)), atol=1e-5)


def test_sweep_depends_on_the_seed_and_on_nothing_else():
    """Neither on the batch size, nor on which other times and ways are asked for, nor on the
    other models"""
    model, x = trained(), images(140)  # more than a block of images
    full = sweep(
        {"a": model, "b": gauss(Schedule.linear(60), n=8, range=(-1.0, 1.0))},
        x,
        [1, 3, 6],
        HOWS,
        train=images(50, seed=2),
        draws=2,
        bs=100,
    )
    some = sweep(model, x, [6], ("ancestral",), bs=1000)
    part = full[(full.model == "a") & (full.t == 6) & (full.how == "ancestral")]
    assert part.image.tolist() == list(range(140))
    close(part.mae, some.mae, atol=1e-5)
    pd.testing.assert_frame_equal(some, sweep(model, x, [6], ("ancestral",), bs=1000))
    other = sweep(model, x, [6], ("ancestral",), seeds=(1,), bs=1000)
    assert (other.mae - some.mae).abs().min() > 0


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
    assert (spy.calls, spy.seen) == (calls, 6 * seen)
    spy.calls = 0
    sweep(
        model, images(6), [2, 5, 20], hows, draws=4, seeds=(0, 1), bs=6
    )  # memory is bounded by bs
    assert spy.calls == 2 * seen


def test_walk_speaks_original_times_and_splits_dispatch():
    """A DAED in the sweep: its own chain, the DDGM's times on the axis, one DAE call for all
    chains, and one result at t = 1"""
    ddgm = DDGM(Spy(), Schedule.linear(50), (1, 8, 8))
    daed = DAED.from_ddgm(ddgm, 10, Spy())
    errors = sweep(
        {"DDGM": ddgm, "DAED": daed}, images(4), [1, 6], ("ancestral", "ddim", "mean", "noisy")
    )
    assert (
        daed.dae.calls == 1
        and daed.dae.labels == [9]
        and sorted(daed.net.labels) == [10, 11, 12, 13, 14]
    )
    mine = errors[errors.model == "DAED"]
    assert mine.kind.unique().tolist() == ["DAED"] and mine.step.unique().tolist() == [10, 15]
    assert mine.share.unique().tolist() == [0.2, 0.3]
    first = mine[(mine.t == 1) & (mine.how != "noisy")].pivot(
        index="image", columns="how", values="mae"
    )
    close(first.ancestral, first["mean"], atol=1e-6), close(first.ddim, first["mean"], atol=1e-6)
    # the same corruption at the same level, whatever the chain
    both = sweep(
        {"DDGM": ddgm, "DAED": daed},
        images(4),
        level=float(1 - ddgm.sched.alpha_bar[10]),
        hows=("noisy",),
    )
    assert (
        both.t.unique().tolist() == [10, 1]
        and both[both.t == 10].mae.tolist() == both[both.t == 1].mae.tolist()
    )


def test_ddgm_and_daed_share_the_noise_of_common_steps():
    """With the DDGM's own network as DAE, the two differ by the last n steps only; ancestral
    noise of the others is equal"""
    model = trained()
    daed = DAED.from_ddgm(
        model, 1, trained().net
    )  # n = 1: the same chain with a copy at the first step
    a, b = (sweep(m, images(4), [1, 9], ("ancestral", "ddim")) for m in (model, daed))
    close(a.mae, b.mae, atol=1e-6)


def test_shared_noise_and_monotone_error():
    "MAE vanishes with the noise and grows with t for the optimal Gaussian model; t = 0 is no step"
    ts = [1, 2, 5, 10, 20, 50, 98, 200, 400]
    table = summarise(sweep(gauss(), draw(32), ts, ("ancestral", "mean", "noisy"), scale=WIDE))
    for _, g in table.groupby("how"):
        assert g.mae.is_monotonic_increasing and g.t.tolist() == ts
    assert table[table.how == "mean"].mae.iloc[0] < 0.0081
    x0 = draw(3)
    assert torch.equal(gauss().reconstruct(x0, 0), x0)
    with pytest.raises(ValueError, match=r"ts: whole numbers in 1\.\.1000"):
        sweep(gauss(), x0, [0, 5])


def test_scale_and_the_noisy_baseline():
    """Constant -1 against +1 is 2, however stored; x_1/sqrt(abar) has MAE .2660 at .1 for any
    data, unclipped"""
    one = torch.ones(2, 1, 8, 8)
    for back, x, r in ((-one, one, (-1.0, 1.0)), (0 * one, one, (0.0, 1.0))):
        close(_measure(back, x, r, (-1.0, 1.0))[:, 0], [2.0, 2.0])
    for x in (images(40, 32), images(40, 32).sign()):
        table = summarise(sweep(gauss(range=(-1.0, 1.0), n=32), x, level=0.1, hows=("noisy",)))
        close(table.mae, np.sqrt(2 / math.pi * table.level / (1 - table.level)), rtol=0.005)
        close(table.mae, 0.2660, rtol=0.01)


def test_ms_ssim_setting_travels_and_identity_is_one():
    errors = sweep(gauss(range=(-1.0, 1.0), n=28), images(4, 28), [3], ("mean",))
    assert (
        (errors.win == 7).all()
        and (errors.scales == 3).all()
        and {"win", "scales"} <= {*summarise(errors)}
    )
    x = images(3, 28)
    close(_measure(x, x, (-1.0, 1.0), (-1.0, 1.0)), [[0, 0, 1]] * 3, atol=1e-6)
    assert np.isfinite(_measure(-x, x, (-1.0, 1.0), (-1.0, 1.0))).all()


@pytest.mark.parametrize(
    "name,tenth", [("Ho 1000", 0.103), ("repo 1000", 0.177), ("cosine 1000", 0.028)]
)
def test_a_tenth_of_the_steps_is_no_noise_level(name, tenth):
    s = SCHEDULES[name]
    close(sweep(gauss(s, n=8), draw(3, 8), [s.T // 10], ("noisy",)).level, tenth, atol=6e-4)


@pytest.mark.parametrize("name,n", [("repo 500", 33), ("Ho 1000", 98), ("cosine 4000", 794)])
def test_levels_are_looked_up_in_each_schedule(name, n):
    "Counts, not indices"
    s = SCHEDULES[name]
    errors = sweep(
        {"own": gauss(s, n=8), "DAED": DAED.from_ddgm(gauss(s, n=8), n, GaussianNet(s, 0.25))},
        draw(3, 8),
        level=0.1,
        hows=("mean",),
    )
    assert errors.t.unique().tolist() == [n, 1] and errors.step.unique().tolist() == [n]
    close(errors.level, 0.1, atol=2e-3)


def test_summary_averages_seeds_first():
    errors = sweep(trained(), images(6), [3, 9], ("ancestral",), seeds=(0, 1, 2))
    table, g = summarise(errors), errors[errors.t == 9]
    row = table[table.t == 9].iloc[0]
    per = g.groupby("image").mae.mean()
    close([row.mae, row.mae_high - row.mae], [per.mean(), 1.959964 * per.std() / 6**0.5], rtol=1e-6)
    close(row.mae_seed_sd, g.groupby("seed").mae.mean().std())
    assert (row.n, row.seeds, row.coverage) == (6, 3, 0.95)


def test_reloaded_model_gives_the_same_table(tmp_path):
    model = trained()
    save_checkpoint(tmp_path / "m.safetensors", model)
    pd.testing.assert_frame_equal(
        sweep(model, images(3), [4]),
        sweep(load_checkpoint(tmp_path / "m.safetensors"), images(3), [4]),
    )


@pytest.mark.parametrize("n", [30, 64, 300])
def test_linear_denoiser_against_its_formula(n):
    "Dense matrices and scikit-learn's shrinkage; fewer images than pixels, as many, more"
    x = images(n) @ torch.randn(8, 8, generator=gen(1)) * 0.2
    flat = x.flatten(1).double()
    lin, s = LinearDenoiser(x), ledoit_wolf_shrinkage(flat.numpy())
    cov = torch.cov(flat.T, correction=0)
    cov = (1 - s) * cov + s * cov.trace() / 64 * torch.eye(64).double()
    xt, ab = images(5, seed=3), 0.8
    gain = ab**0.5 * cov @ torch.linalg.inv(ab * cov + (1 - ab) * torch.eye(64).double())
    want = flat.mean(0) + (xt.flatten(1).double() - ab**0.5 * flat.mean(0)) @ gain.T
    assert lin.shrinkage == pytest.approx(s, rel=1e-6)
    close(lin(xt, ab).flatten(1), want, atol=1e-5)


def test_linear_denoiser_is_optimal_for_gaussian_data():
    table = summarise(
        sweep(
            gauss(n=8),
            draw(400, 8),
            [98],
            ("linear", "mean"),
            train=draw(2000, 8, seed=9),
            scale=WIDE,
        )
    ).set_index("how")
    close(table.mse["linear"] / table.mse["mean"], 1, atol=0.02)
    same = LinearDenoiser(torch.ones(4, 1, 8, 8) * 0.3)  # nothing varies: the mean is the answer
    close(same(images(2), 0.5), 0.3, atol=1e-6)


def exact_variance(s2=0.25, n=32):
    """A DDGM with the optimal mean and the exact variance of p(x_{t-1} | x_t) for Gaussian data,
    through its learned variance"""

    class Exact(GaussianNet):
        def forward(self, xt, label):
            t = int(label[0]) + 1
            ab = float(HO.alpha_bar[t])
            rest = s2 * (1 - ab) / (ab * s2 + 1 - ab)  # variance of x0 given x_t
            log_var = math.log(float(HO.post_var[t]) + float(HO.coef_x0[t]) ** 2 * rest)
            low, high = float(HO.post_log_var[t]), float(HO.log_beta[t])
            v = 2 * (log_var - low) / (high - low) - 1 if t > 1 else 0.0
            return torch.cat([super().forward(xt, label), torch.full_like(xt, v)], 1)

    return DDGM(Exact(HO, s2), HO, (1, n, n), range=WIDE, loss="vlb", var="learned")


def test_summary_draws_as_the_errors_do():
    errors = sweep(
        trained(),
        {"a": images(8), "b": images(8, seed=1)},
        [1, 3, 8],
        ("ancestral", "mean", "noisy"),
    )
    for a, b in zip(plot_sweep(errors), plot_sweep(summarise(errors))):
        assert np.array_equal(a.lines[0].get_xydata(), b.lines[0].get_xydata())


grey, colour = trained(), images(3, 8, 3)
x = images(4)
CALLS = {
    "grey model on colour": (
        lambda: sweep(grey, colour, [1]),
        "images: got 3 channels; 1 are needed",
    ),
    "target of another size": (
        lambda: sweep(grey, {"t": images(3, 16)}, [1]),
        "t: 16x16 pixels, the model was made for 8x8.*other_size",
    ),
    "size the network can't take": (
        lambda: sweep(grey, images(3, 9), [1], other_size=True),
        "multiples of 2",
    ),
    "out of range": (lambda: sweep(grey, x + 3, [1]), r"images: .*must lie in \[-1, 1\]"),
    "bytes": (lambda: sweep(grey, x.byte(), [1]), "images: got torch.uint8"),
    "no images": (lambda: sweep(grey, x[:0], [1]), "none of these is 0"),
    "one image": (lambda: sweep(grey, x[:1], [1]), "images: .*at least 2"),
    "all black in [0,1]": (
        lambda: sweep(
            DDGM(GaussianNet(HO), HO, (1, 8, 8), range=(0.0, 1.0)), torch.zeros(3, 1, 8, 8), [1]
        ),
        "0 everywhere",
    ),
    "time 0": (lambda: sweep(grey, x, [0, 1]), r"ts: whole numbers in 1\.\.50"),
    "time T+1": (lambda: sweep(grey, x, [51]), r"ts: whole numbers in 1\.\.50"),
    "half a time": (lambda: sweep(grey, x, [1.5]), "ts: whole numbers"),
    "no times": (lambda: sweep(grey, x, []), "ts: whole numbers"),
    "times and level": (lambda: sweep(grey, x, [1], level=0.1), "ts, level: give one"),
    "neither": (lambda: sweep(grey, x), "ts, level: give one"),
    "level above 1": (lambda: sweep(grey, x, level=1.5), r"level: .*\(0,1\)"),
    "level below the schedule": (
        lambda: sweep(DAED.from_ddgm(gauss(), 300, GaussianNet(HO)), draw(3), level=0.01),
        "level: 0.01 is asked for, but the nearest",
    ),
    "way unknown": (lambda: sweep(grey, x, [1], ("magic",)), "hows: some of"),
    "no way": (lambda: sweep(grey, x, [1], ()), "hows: some of"),
    "linear without training images": (lambda: sweep(grey, x, [1], ("linear",)), "hows, train"),
    "training images without linear": (lambda: sweep(grey, x, [1], train=images(9)), "hows, train"),
    "filter fitted on the test images": (
        lambda: sweep(grey, x, [1], ("linear",), train=x.clone()),
        "train: the very images",
    ),
    "filter for another set": (
        lambda: sweep(grey, {"a": x}, [1], ("linear",), train={"b": images(9)}),
        "train: no images to fit a filter on for 'a'",
    ),
    "no seed": (lambda: sweep(grey, x, [1], seeds=()), "seeds: at least one"),
    "no draws": (lambda: sweep(grey, x, [1], draws=0), "draws: at least 1"),
    "no model": (lambda: sweep(grey.net, x, [1]), "models: a DDGM or DAED is needed, got a UNet"),
    "no signal": (
        lambda: log_snr_curves(HO, torch.zeros(2, 1, 4, 4)),
        "images: an image that is 0 everywhere",
    ),
    "no powers": (lambda: log_snr_curves(HO, {"e": torch.zeros(0)}), "e: "),
    "power 0": (lambda: snr_crossing(HO, 0.0), "power: .*above 0, got 0"),
    "filter from one image": (lambda: LinearDenoiser(x[:1]), "train: 1 image"),
}


@pytest.mark.parametrize("case", CALLS)
def test_bad_input(case):
    call, message = CALLS[case]
    with pytest.raises((ValueError, TypeError), match=f"(?s){message}"):
        call()
