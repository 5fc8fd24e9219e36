"""How often does a nominal 95% interval hold the truth? python tools/coverage.py --repeats 100
--only resampled

Every kind of interval that reports and results print is made again and again from made-up data
whose truth is known, or, where a score depends on the numbers of images, from its mean over all
repetitions. Writes docs/results/coverage.json: the share of intervals that held the truth, with the
interval that this share itself has (Wilson 1927), and the mean width beside four standard
deviations of the estimate, which is about what it should be. With --only, the rows whose name has
that text are made anew, and each row says of which commit it is."""

import argparse

import numpy as np
import pandas as pd
import torch
from recording import DOCS

from denoise_study.core import frechet_interval, knn_precision_recall, mean_interval, prd
from denoise_study.core import paired_interval, read_json, run_info, t_interval
from denoise_study.core import two_level_bootstrap, two_level_interval, write_json
from denoise_study.daed import transition_point
from denoise_study.denoiser import psnr_gain

N = 150  # images of a set


def sets(gen, dim=8, scale=1.2):
    "Features of two sets that differ a little"
    return torch.randn(N, dim, generator=gen), scale * torch.randn(N, dim, generator=gen)


def score(name):
    "A score of two sets, as an interval"

    def make(gen):
        real, fake = sets(gen)
        return knn_precision_recall(real, fake)[name]

    return make


def frechet(gen):
    return frechet_interval(*sets(gen), progress=False)


def prd_recall(gen):
    return prd(*sets(gen), runs=2).f8


def mean(method, n):
    def make(gen):
        x = torch.randn(n, generator=gen).exp()  # skewed, as errors are
        return mean_interval(x, method, seed=int(torch.randint(10**6, (), generator=gen)))

    return make


def paired(gen):
    hard = torch.randn(N, generator=gen).exp()
    noise = torch.randn(2, N, generator=gen)
    return paired_interval(hard + 0.1 * noise[0] + 0.05, hard + 0.1 * noise[1], method="normal")


def gain(gen):
    "Two denoisers that find the same images hard, the second with 10% more error"
    errors = torch.randn(2, N, generator=gen) * 0.2 + torch.randn(N, generator=gen)
    ours, theirs = errors.exp()
    return psnr_gain(ours, 1.1 * theirs)


def few(gen):
    return t_interval(torch.randn(5, generator=gen), unit="trainings")


def two_level(make):
    "Networks differ, images differ, and both together"

    def made(gen):
        rows = torch.randn(5, 1, generator=gen)
        columns = torch.randn(1, 100, generator=gen)
        return make(rows + columns + torch.randn(5, 100, generator=gen))

    return made


def switch(gen):
    "Where an excess that grows with the time passes 10%"
    rng = np.random.default_rng(int(torch.randint(10**6, (), generator=gen)))
    rows = []
    for name in "ab":
        hard = rng.normal(size=N)
        for t in (2, 5, 10, 15, 20):
            mae = 0.02 * t * (1 + 0.006 * t * (name == "b") * 2)
            mae = mae * (1 + 0.25 * hard + 0.1 * rng.normal(size=N))
            where = dict(model="m", set=name, how="ancestral", t=t, share=t / 100, level=t / 100)
            where |= dict(log_snr=-t, seed=0, image=np.arange(N), mae=mae)
            rows.append(pd.DataFrame(where))
    point = transition_point(pd.concat(rows), "a", "b", n_boot=200)
    value, low, high = [point[k] for k in ("share", "share_low", "share_high")]
    return dict(value=value or 1.0, low=low or 1.0, high=high or 1.0)


# name -> (how one is made, the truth; None: the mean over all repetitions)
CASES = {
    f"mean of {N} skewed values, normal": (mean("normal", N), np.exp(0.5)),
    f"mean of {N} skewed values, bootstrap": (mean("bootstrap", N), np.exp(0.5)),
    f"paired difference of {N}, normal": (paired, 0.05),
    f"gain in decibels, {N} images": (gain, 10 * np.log10(1.1)),
    "mean of 5 trainings, Student": (few, 0.0),
    "mean over 5 networks and 100 images": (two_level(two_level_interval), 0.0),
    "the same, resampled": (two_level(two_level_bootstrap), 0.0),
    f"Fréchet distance, {N} and {N} images": (frechet, None),
    f"precision, {N} and {N} images": (score("precision"), None),
    f"recall, {N} and {N} images": (score("recall"), None),
    f"recall of PRD, {N} and {N} images": (prd_recall, None),
    f"place of the switch, {N} images": (switch, 10 / 120),
}


def covered(make, truth, repeats, seed=0):
    "Share of intervals that hold the truth"
    gen = torch.Generator().manual_seed(seed)
    found = [make(gen) for _ in range(repeats)]
    get = lambda k: np.array([f[k] if isinstance(f, dict) else getattr(f, k) for f in found])
    value, low, high = get("value"), get("low"), get("high")
    if truth is None:
        truth = value.mean()
    share = float(((low <= truth) & (truth <= high)).mean())
    z2 = 1.96**2 / repeats
    middle = (share + z2 / 2) / (1 + z2)
    half = (share * (1 - share) * z2 + z2**2 / 4) ** 0.5 / (1 + z2)
    widths = dict(width=(high - low).mean(), four_sd=4 * value.std())
    return dict(held=share, held_low=middle - half, held_high=middle + half, **widths)


def main(repeats, only):
    path = DOCS / "results/coverage.json"
    run = run_info("cpu")
    rows = {}
    if only:
        before = read_json(path)
        for row in before["table"]:
            rows[row["interval"]] = dict(commit=before["run"]["commit"]) | row
    for name, (make, truth) in CASES.items():
        if only not in name:
            continue
        about = dict(interval=name, repeats=repeats, commit=run["commit"])
        rows[name] = about | covered(make, truth, repeats)
        print(rows[name], flush=True)
    write_json(path, dict(run=run, nominal=0.95, table=list(rows.values())))


if __name__ == "__main__":
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--repeats", type=int, default=100)
    p.add_argument("--only", default="", help="text in the names of the intervals to make anew")
    main(**vars(p.parse_args()))
