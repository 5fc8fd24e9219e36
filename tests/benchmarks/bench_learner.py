"""What the Learner and the sampling loop cost beside the arithmetic: python
tests/benchmarks/bench_learner.py [--json FILE]

Steps: a model of 64 weights, so that nothing but overhead is left; milliseconds of CPU time per
step, Learner against a bare loop that draws the
same noise, uses the same optimiser and keeps the same average. Sampling: the loop around T forward
passes against the T forward passes alone,
in alternating pieces of one run."""

import argparse
import statistics
import time

import torch
from torch import nn

from denoise_study.core import denoise_learner, image_dls, run_info, step_generator, weighted_mean
from denoise_study.core import write_json
from denoise_study.diffusion import ancestral, DDGM, ddim, Schedule, UNet


class Scale(nn.Module):
    "One weight per pixel: the step costs nothing"

    shape, range = (1, 8, 8), (-1.0, 1.0)

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(1, 8, 8))

    def draw(self, shape, generator):
        return torch.ones(shape[0]), torch.randn(shape, generator=generator)

    def forward(self, x0, z):
        return (self.w * (x0 + 0.5 * z) - x0).pow(2).mean((1, 2, 3))


def bare(dls, epochs):
    "The loop that anybody would write"
    model, avg, step = Scale(), Scale().requires_grad_(False), 0
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0, fused=True)
    start = time.process_time()
    for _ in range(epochs):
        for x0, _ in dls.train:
            w, z = model.draw(x0.shape, step_generator(0, step))
            weighted_mean(model(x0, z), w).backward()
            opt.step()
            opt.zero_grad()
            torch._foreach_lerp_(
                list(avg.parameters()), [p.detach() for p in model.parameters()], 0.001
            )
            step += 1
    return 1e3 * (time.process_time() - start) / step


def learner(dls, epochs):
    "The same through fastai; the one validation image counts, too"
    learn = denoise_learner(dls, Scale(), ema=0.999)
    with learn.no_bar(), learn.no_logging():
        start = time.process_time()
        learn.fit(epochs, 1e-3)
        return 1e3 * (time.process_time() - start) / (epochs * len(dls.train))


def overhead(reps=5, epochs=8):
    pairs = []
    for _ in range(reps):
        dls = image_dls("digits", bs=16, valid=1, device="cpu")
        pairs.append((bare(dls, epochs), learner(dls, epochs)))
    return {
        "bare, ms": statistics.median(a for a, _ in pairs),
        "Learner, ms": statistics.median(b for _, b in pairs),
        "overhead, ms": statistics.median(b - a for a, b in pairs),
    }


def sampling(walk, n=16, T=100, reps=5):
    "Share of the loop beyond T forward passes, in alternating pieces"
    torch.manual_seed(0)
    model = DDGM(
        UNet(channels=1, width=64, mult=(1, 2, 2), n_blocks=2, attn=(2,)),
        Schedule.linear(T),
        shape=(1, 32, 32),
    ).eval()
    x, label = torch.randn(n, 1, 32, 32), torch.zeros(n, dtype=torch.int64)
    shares, gen = [], torch.Generator()
    with torch.no_grad():
        model.net(x, label)
        for _ in range(reps):
            steps, inner, outer = walk(model, x, gen), 0.0, 0.0
            for t in range(20):
                a = time.process_time()
                model.net(x, label + t)
                b = time.process_time()
                next(steps)
                inner, outer = inner + b - a, outer + time.process_time() - b
            shares.append(outer / inner - 1)
    return statistics.median(shares)


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--json")
    args = p.parse_args()
    torch.set_num_threads(1)
    result = overhead() | {
        f"{w.__name__} loop over its forward passes": sampling(w) for w in (ancestral, ddim)
    }
    for k, v in result.items():
        print(f"{k:45} {v:.3f}" if "ms" in k else f"{k:45} {100 * v:+.2f}%")
    if args.json:
        write_json(args.json, dict(run=run_info(), **result))
