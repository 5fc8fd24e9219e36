"""What sharing the walk saves: python tests/benchmarks/bench_transition.py [--images N] [--times
K] [--repeat R] [--json FILE]

A reconstruction sweep over K times, three ways back, against the loop that reconstructs from each
time on its own; and the samples of several
two-step DAEDs from one walk against each model's own. Both sides ask the same network; seconds are
CPU seconds of one thread on a CPU, wall
seconds on a GPU. Best of R rounds, the sides in turns."""

import argparse
import time

import torch

from denoise_study.daed import DAED, same_noise
from denoise_study.diffusion import DDGM, image_noise, reconstruction_sweep, Schedule, UNet
from denoise_study.core import compare_images, run_info, write_json

HOWS = "ancestral", "ddim", "mean"


def unet():
    return UNet(channels=1, width=32, mult=(1, 2), n_blocks=1, attn=(2,))


def best(sides, repeat, device):
    "Least seconds of each side"
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    secs = {k: [] for k in sides}
    for _ in range(repeat):
        for k, f in sides.items():
            start = clock()
            f()
            if device.type == "cuda":
                torch.cuda.synchronize()
            secs[k].append(clock() - start)
    return {k: min(v) for k, v in secs.items()}


def bench_sweep(model, x, ts, repeat):
    def loop():
        eps = image_noise(x, 0)
        for t in ts:
            for how in HOWS:
                compare_images(
                    model.reconstruct(x, t, how, seed=t, eps=eps).clamp(-1, 1), x, range=model.range
                )

    secs = best(
        dict(one_walk=lambda: reconstruction_sweep(model, x, ts, HOWS, progress=False), loop=loop),
        repeat,
        x.device,
    )
    return dict(
        what=f"sweep of {len(x)} images over {len(ts)} times up to {ts[-1]}",
        calls_one_walk=ts[-1],
        calls_loop=2 * sum(ts) + len(ts),
        **secs,
        ratio=secs["loop"] / secs["one_walk"],
    )


def bench_splits(model, n, k, repeat):
    T = model.sched.T
    daeds = {
        f"n={m}": DAED.from_ddgm(model, m, unet().to(next(model.parameters()).device))
        for m in range(T // 20, T // 2, T // (2 * k))
    }

    def alone():
        for m in (model, *daeds.values()):
            m.sample(n, progress=False)

    secs = best(
        dict(one_walk=lambda: same_noise(model, daeds, n, progress=False), alone=alone),
        repeat,
        next(model.parameters()).device,
    )
    return dict(
        what=f"{n} samples of a DDGM and {len(daeds)} two-step DAEDs, T={T}",
        **secs,
        ratio=secs["alone"] / secs["one_walk"],
    )


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--images", type=int, default=16)
    p.add_argument("--times", type=int, default=20)
    p.add_argument("--repeat", type=int, default=2)
    p.add_argument("--device", default="cpu")
    p.add_argument("--json", help="file to write the results to")
    a = p.parse_args()
    torch.manual_seed(0)
    if a.device == "cpu":
        torch.set_num_threads(1)
    model = DDGM(unet(), Schedule.linear(100), (1, 8, 8)).to(a.device)
    x = (torch.rand(a.images, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1).to(
        a.device
    )
    ts = sorted({max(1, round(40 * i / a.times)) for i in range(1, a.times + 1)})
    rows = [bench_sweep(model, x, ts, a.repeat), bench_splits(model, a.images, 5, a.repeat)]
    for r in rows:
        print(r)
    if a.json:
        write_json(a.json, dict(run=run_info(a.device), rows=rows))


if __name__ == "__main__":
    main()
