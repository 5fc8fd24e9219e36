"""Samples, features, moments, neighbours, a sweep and channel averages, by as many processes as the
launcher starts, for tests that compare two with one: run_sharing.py FOLDER"""

import argparse
import contextlib
import os
import warnings
from pathlib import Path

import torch
from torch import nn

from denoise_study.core import ArraySource, by_first, compute_features, image_moments, ImageLoader
from denoise_study.core import knn_precision_recall, of_all, rank_and_size, together, write_json
from denoise_study.core import write_tensors
from denoise_study.denoiser import BlindUNet, denoiser, sample
from denoise_study.diffusion import DDGM, reconstruction_sweep, Schedule, UNet
from denoise_study.representation import channel_averages
from denoise_study.study import command_line


def small_models():
    torch.manual_seed(0)
    net = UNet(channels=1, width=32, mult=(1, 2), n_blocks=1, attn=())
    ddgm = DDGM(net, Schedule.cosine(6), shape=(1, 8, 8))
    return ddgm, denoiser(BlindUNet(1, (8, 16), (2, 2, 2)), shape=(1, 8, 8))


def space():
    "A feature space of random weights"
    layers = nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    net = nn.Sequential(*layers)
    net.name = "random"
    return net


class Killed(Exception):
    pass


def read_twice(D, loader, path, **kwargs):
    "Channel averages of a reading that breaks off after two batches and is asked for again"
    calls = []
    averages = D.averages

    def counted(*args):
        calls.append(args)
        if len(calls) == 3:
            raise Killed
        return averages(*args)

    D.averages = counted
    with contextlib.suppress(Killed):
        channel_averages(D, loader, 0.3, None, 2, path=path, **kwargs)
    of_all("broken off")  # no process looks before all have written their part
    parts = sorted(f.name for f in path.parent.glob("*.part"))
    return channel_averages(D, loader, 0.3, None, 2, path=path, **kwargs), len(calls), parts


def everything(folder):
    "What is compared, tensor by tensor, and a table"
    ddgm, D = small_models()
    net = space()
    quiet = dict(progress=False)
    x = ddgm.sample(70, seed=1, bs=16, **quiet)
    grey = ((x + 1) * 127.5).round() / 127.5 - 1
    bits = ddgm.bits_per_dim(grey[:20], bs=8, **quiet)
    real = torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    features = compute_features(net, x, (-1.0, 1.0), bs=16, **quiet)
    u = (real * 255).byte()
    loader = ImageLoader(ArraySource(u), 8, (0.0, 1.0), device="cpu")
    others = compute_features(net, loader, **quiet)
    moments = image_moments(net, x, (-1.0, 1.0), bs=16, **quiet)
    sweep = reconstruction_sweep(ddgm, x[:9], [2, 5], ("ancestral", "mean"), seeds=(0, 1), **quiet)
    path = folder / "phi.safetensors"
    phi, calls, parts = read_twice(D, loader, path, bs=16, **quiet)
    tensors = dict(
        samples=x,
        few=ddgm.sample(3, bs=16, **quiet),  # one batch: the second process has all the work
        bits=bits["total"],
        ascended=sample(D, 5, bs=2, sigma=0.5, **quiet),
        features=features.x,
        others=others.x,
        mean=moments.mean,
        cov=moments.cov,
        sweep=torch.tensor(sweep[["t", "seed", "image", "mae", "mse", "ms_ssim"]].to_numpy()),
        **phi.taps,
    )
    knn = knn_precision_recall(others, features, bs=8)
    return tensors, dict(knn=knn, rows=len(phi), calls=of_all(calls), parts=of_all(parts))


def main(folder):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folder = Path(folder)
    with together():
        rank, world = rank_and_size()
        tensors, told = everything(folder)
        told["worked"] = of_all(f"{rank} of {world}")
        told["first"] = by_first(lambda: os.environ.get("RANK", "0"))
        sums = of_all({k: v.sum().item() for k, v in tensors.items()})
        told["same"] = all(o == sums[0] for o in sums)  # every process has the whole
        write_tensors(folder / "all.safetensors", tensors, dict(kind="test"))
        write_json(folder / "told.json", told)
    os.chdir(folder)
    command_line("sample ddgm-digits --n 5 --bs 2 --steps 3 --out five.png".split())


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("folder")
    main(**vars(p.parse_args()))
