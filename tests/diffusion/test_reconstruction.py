"The sweep and its summary: the factor of two, noise that is shared, bad questions"

import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import close, gauss, HO, images, normal, sweep, trained, WIDE

from denoise_study.core import load_checkpoint, save_checkpoint
from denoise_study.daed import DAED
from denoise_study.diffusion import DDGM, GaussianNet, plot_sweep, Schedule, summarise, WAYS_BACK


def exact_variance(s2=0.25, n=32):
    "Optimal mean and exact variance of p(x_{t-1} | x_t) for Gaussian data, as a learned variance"

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


def test_a_sample_has_twice_the_error_of_the_mean():
    "s2 = .25 from n = 98: MMSE .076491; ancestral MSE .15288 exact, .15312 large, .15000 small"
    models = {"exact": exact_variance(), "large": gauss(n=32), "small": gauss(n=32, var="small")}
    errors = sweep(models, normal(256, 32), [98], ("ancestral", "mean"), scale=WIDE)
    table = summarise(errors).set_index(["model", "how"])
    mse, mae = table.mse, table.mae
    close(mse["large", "mean"], 0.076491, rtol=0.006)
    close([mse[k, "ancestral"] for k in models], [0.15288, 0.15312, 0.15000], rtol=0.006)
    close(mse["exact", "ancestral"] / mse["exact", "mean"], 1.9987, rtol=0.008)
    close(mae["exact", "ancestral"] / mae["exact", "mean"], 1.414, rtol=0.005)
    # with the noise shared, differences between variances are far more accurate than any value
    exact = mse["exact", "ancestral"]
    close(mse["small", "ancestral"] / exact, 0.15000 / 0.15288, rtol=1.5e-3)
    close(mse["large", "ancestral"] / exact, 0.15312 / 0.15288, rtol=1.5e-3)


def test_average_of_draws_tends_to_the_mean():
    "K draws: MMSE (1 + 1/K)"
    errors = sweep(gauss(n=32), normal(64, 32), [98], ("mean", "average"), draws=4, scale=WIDE)
    table = summarise(errors).set_index("how")
    close(table.mse["average"] / table.mse["mean"], 1.25, rtol=0.01)
    assert table.calls["average"] == 4 * 98


def test_sweep_depends_on_the_seed_and_on_nothing_else():
    "Neither on the batch size, nor on which other times, ways and models are asked for"
    model, x = trained(), images(140)  # more than a block of images
    models = {"a": model, "b": gauss(Schedule.linear(60), n=8, range=(-1.0, 1.0))}
    full = sweep(models, x, [1, 3, 6], WAYS_BACK, train=images(50, seed=2), draws=2, bs=100)
    some = sweep(model, x, [6], ("ancestral",), bs=1000)
    part = full[(full.model == "a") & (full.t == 6) & (full.how == "ancestral")]
    assert part.image.tolist() == list(range(140))
    close(part.mae.to_numpy(), some.mae.to_numpy(), atol=1e-5)
    pd.testing.assert_frame_equal(some, sweep(model, x, [6], ("ancestral",), bs=1000))
    other = sweep(model, x, [6], ("ancestral",), seeds=(1,), bs=1000)
    assert (other.mae - some.mae).abs().min() > 0


def test_error_vanishes_with_the_noise_and_grows_with_it():
    "For the optimal Gaussian model; t = 0 is no step"
    ts = [1, 2, 5, 10, 20, 50, 98, 200, 400]
    errors = sweep(gauss(), normal(32), ts, ("ancestral", "mean", "noisy"), scale=WIDE)
    table = summarise(errors)
    for _, g in table.groupby("how"):
        assert g.mae.is_monotonic_increasing and g.t.tolist() == ts
    assert table[table.how == "mean"].mae.iloc[0] < 0.0081
    x0 = normal(3)
    assert torch.equal(gauss().reconstruct(x0, 0), x0)
    with pytest.raises(ValueError, match=r"ts: whole numbers in 1\.\.1000"):
        sweep(gauss(), x0, [0, 5])


def test_setting_of_ms_ssim_travels():
    errors = sweep(gauss(range=(-1.0, 1.0), n=28), images(4, 28), [3], ("mean",))
    assert (errors.win == 7).all() and (errors.scales == 3).all()
    assert {"win", "scales"} <= {*summarise(errors)}


def test_summary_averages_seeds_first():
    errors = sweep(trained(), images(6), [3, 9], ("ancestral",), seeds=(0, 1, 2))
    table, g = summarise(errors), errors[errors.t == 9]
    row = table[table.t == 9].iloc[0]
    per = g.groupby("image").mae.mean()
    half = 1.959964 * per.std() / 6**0.5
    close([row.mae, row.mae_high - row.mae], [per.mean(), half], rtol=1e-6)
    close(row.mae_seed_sd, g.groupby("seed").mae.mean().std(), rtol=1e-12)
    assert (row.n, row.seeds, row.coverage) == (6, 3, 0.95)


def test_reloaded_model_gives_the_same_table(tmp_path):
    model = trained()
    save_checkpoint(tmp_path / "m.safetensors", model)
    again = load_checkpoint(tmp_path / "m.safetensors")
    pd.testing.assert_frame_equal(sweep(model, images(3), [4]), sweep(again, images(3), [4]))


def test_figure_of_errors_is_that_of_their_summary():
    sets = {"a": images(8), "b": images(8, seed=1)}
    errors = sweep(trained(), sets, [1, 3, 8], ("ancestral", "mean", "noisy"))
    for a, b in zip(plot_sweep(errors), plot_sweep(summarise(errors))):
        assert np.array_equal(a.lines[0].get_xydata(), b.lines[0].get_xydata())


grey, color, x = trained(), images(3, 8, 3), images(4)
unsigned = DDGM(GaussianNet(HO), HO, (1, 8, 8), range=(0.0, 1.0))
late = lambda: DAED.from_ddgm(gauss(), 300, GaussianNet(HO))
CALLS = {
    "grey model on colour": (lambda: sweep(grey, color, [1]), "images: got 3 channels; 1 are"),
    "target of another size": (
        lambda: sweep(grey, {"t": images(3, 16)}, [1]),
        "t: 16x16 pixels, the model was made for 8x8.*other_size",
    ),
    "size the network can't take": (
        lambda: sweep(grey, images(3, 9), [1], other_size=True),
        "multiples of 2",
    ),
    "out of range": (lambda: sweep(grey, x + 3, [1]), r"images: .*must lie in \[-1, 1\]"),
    "bytes": (lambda: sweep(grey, x.byte(), [1]), "images: .*got torch.uint8"),
    "no images": (lambda: sweep(grey, x[:0], [1]), "none of these is 0"),
    "one image": (lambda: sweep(grey, x[:1], [1]), "images: .*at least 2"),
    "all black in [0,1]": (lambda: sweep(unsigned, torch.zeros(3, 1, 8, 8), [1]), "0 everywhere"),
    "time 0": (lambda: sweep(grey, x, [0, 1]), r"ts: whole numbers in 1\.\.50"),
    "time T+1": (lambda: sweep(grey, x, [51]), r"ts: whole numbers in 1\.\.50"),
    "half a time": (lambda: sweep(grey, x, [1.5]), "ts: whole numbers"),
    "no times": (lambda: sweep(grey, x, []), "ts: whole numbers"),
    "times and level": (lambda: sweep(grey, x, [1], level=0.1), "ts, level: give one"),
    "neither": (lambda: sweep(grey, x), "ts, level: give one"),
    "level above 1": (lambda: sweep(grey, x, level=1.5), r"level: .*\(0,1\)"),
    "level below the schedule": (
        lambda: sweep(late(), normal(3), level=0.01),
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
    "no seed": (lambda: sweep(grey, x, [1], seeds=()), "seeds: one or more"),
    "no draws": (lambda: sweep(grey, x, [1], draws=0), "draws: a whole number of at least 1"),
    "no model": (lambda: sweep(grey.net, x, [1]), "models: a DDGM or DAED is needed, got a UNet"),
}


@pytest.mark.parametrize("case", CALLS)
def test_bad_input(case):
    call, message = CALLS[case]
    with pytest.raises((ValueError, TypeError), match=f"(?s){message}"):
        call()
