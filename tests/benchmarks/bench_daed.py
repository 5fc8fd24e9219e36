"""What the second network of a DAED costs: python tests/benchmarks/bench_daed.py [--batch N]
[--rounds N] [--json FILE]

Training: one step of a DAED (two U-Nets, each image passes one of them) against one step of a DDGM
of one of the U-Nets, on the same batch:
draw, loss, gradients, fused AdamW, moving average. The two take turns, so that a busy machine
slows both; the result is the median over the
rounds of the ratio of neighbours. Sampling: the loop around T'-1 calls of the generator and one of
the DAE, against these calls alone, in
alternating pieces of one run. Seconds are CPU seconds of one thread."""

import argparse
import statistics
import time

import torch

from denoise_study.daed import DAED
from denoise_study.diffusion import ancestral, DDGM, Schedule, UNet
from denoise_study.core import AdamW, run_info, step_generator, weighted_mean, write_json

SHAPE = 1, 28, 28
CLOCK = time.process_time


def unet():
    return UNet(channels=1, width=64, mult=(1, 2, 2), n_blocks=2, attn=(4,))


class Training:
    "A model with its optimiser and average; `step` trains it once and returns the seconds"

    def __init__(self, model):
        self.model, self.at, self.params = model, 0, list(model.parameters())
        self.opt, self.average = AdamW(self.params), [p.detach().clone() for p in self.params]

    def step(self, x0):
        start = CLOCK()
        w, *rand = self.model.draw(x0.shape, step_generator(0, self.at))
        weighted_mean(self.model(x0, *rand), w).backward()
        self.opt.step()
        self.opt.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.params, 0.001)
        self.at += 1
        return CLOCK() - start


def training(batch, rounds):
    sched = Schedule.linear(500, start=1e-3)
    short = sched.merge_first(sched.nearest(0.1))
    runs = {"DDGM": Training(DDGM(unet(), sched, SHAPE))}
    for s in ("dae", "uniform"):
        runs[f"DAED, sampler {s}"] = Training(DAED(unet(), unet(), short, SHAPE, sampler=s))
    x0 = torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seconds = {k: [] for k in runs}
    for i in range(rounds + 2):  # two to warm up: optimiser states appear
        for k, run in runs.items():
            s = run.step(x0)
            if i > 1:
                seconds[k].append(s)
    base = seconds.pop("DDGM")
    return dict(
        ddgm_seconds=statistics.median(base),
        ratio={k: statistics.median(a / b for a, b in zip(v, base)) for k, v in seconds.items()},
    )


def sampling(rounds, n=16, T=20):
    "Share of the loop beyond T'-1 calls of the generator and one of the DAE"
    torch.manual_seed(0)
    model = DAED(
        unet(), unet(), Schedule.linear(500, start=1e-3).merge_first(33).respace(T), SHAPE
    ).eval()
    gen, shares = torch.Generator().manual_seed(0), []
    x, label = torch.randn(n, *SHAPE, generator=gen), torch.zeros(n)
    with torch.no_grad():
        model.net(x, label), model.dae(x, label)
        for _ in range(rounds):
            steps, inner, outer = ancestral(model, x, gen), 0.0, 0.0
            for t in range(T, 0, -1):
                net = model.net if t > 1 else model.dae
                a = CLOCK()
                net(x, label + t)
                b = CLOCK()
                next(steps)
                inner, outer = inner + b - a, outer + CLOCK() - b
            shares.append(outer / inner - 1)
    return statistics.median(shares)


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--json")
    args = p.parse_args()
    torch.set_num_threads(1)
    result = dict(
        batch=args.batch,
        rounds=args.rounds,
        parameters_of_a_network=sum(q.numel() for q in unet().parameters()),
        image=list(SHAPE),
        training=training(args.batch, args.rounds),
        sampling_beyond_its_calls=sampling(args.rounds),
    )
    print(f"DDGM step: {result['training']['ddgm_seconds']:.2f} CPU s at batch {args.batch}")
    for k, v in result["training"]["ratio"].items():
        print(f"{k:22} {v:.3f} of a DDGM step (target 1.05)")
    print(
        f"sampling loop beyond its calls {100 * result['sampling_beyond_its_calls']:+.2f}% "
        f"(target 3%)"
    )
    if args.json:
        write_json(args.json, dict(run=run_info(), **result))
