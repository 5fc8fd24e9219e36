"""What denoising costs at inference: python bench_denoiserep.py [--model vit] [--batch N]
[--rounds N] [--device cpu] [--json FILE]

Four networks take turns on the same batch: the baseline, the fused one (target: ratio 1.00 and
equal operations), the unfused one with
its denoisers as a second branch, and DenoiseRep^-, T steps behind the backbone. The order of the
turns is drawn anew in each round, so
that a busy machine slows all alike; a result is the median over rounds of the ratio to the
baseline, with a bootstrap interval. A second
baseline, an untouched copy, takes its turn as well: its ratio says how much of the rest is
noise."""

import argparse
import time
from copy import deepcopy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from denoise_study.denoiserep import denoise_rep, DenoiseRepMinus
from denoise_study.core import run_info, write_json
from denoise_study.diffusion import Schedule


class ViT(nn.Module):
    """A small vision transformer, 64 tokens of 16 channels-squared images: patches, blocks, mean,
    head"""

    def __init__(self, width=192, depth=6, heads=4):
        super().__init__()
        self.patch, self.width = nn.Conv2d(3, width, 4, 4), width
        block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def tokens(self, x):
        return self.blocks(self.patch(x).flatten(2).mT)

    def forward(self, x):
        return self.head(self.tokens(x).mean(1))


class Minus(nn.Module):
    "DenoiseRep^- on the tokens that the backbone returns"

    def __init__(self, net, steps):
        super().__init__()
        self.net, self.denoise = net, DenoiseRepMinus(net.width, Schedule.linear(1000), steps)

    def forward(self, x):
        return self.net.head(self.denoise(self.net.tokens(x)).mean(1))


def resnet():
    from torchvision.models import resnet50

    return resnet50(weights=None), 64


def networks(kind, steps, device, batch):
    "Name -> callable, and the batch"
    torch.manual_seed(0)
    net, size = (ViT(), 32) if kind == "vit" else resnet()
    net, x = net.eval().to(device), torch.randn(batch, 3, size, size, device=device)
    dr = denoise_rep(deepcopy(net), example=x[:2])
    fused = denoise_rep(deepcopy(net), example=x[:2]).fuse()

    def unfused(x):
        with dr.two_branch():
            return dr.model(x)

    nets = {"baseline": net, "baseline again": deepcopy(net), "fused": fused, "unfused": unfused}
    if kind == "vit":
        nets["DenoiseRep^-"] = Minus(deepcopy(net), steps).eval().to(device)
    return nets, x


def seconds(f, x):
    if x.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    f(x)
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interval(ratios, n=2000):
    "Median and its 95% bootstrap interval"
    r = torch.tensor(ratios, dtype=torch.float64)
    draws = (
        r[torch.randint(len(r), (n, len(r)), generator=torch.Generator().manual_seed(0))]
        .median(1)
        .values
    )
    return dict(
        ratio=float(r.median()), low=float(draws.quantile(0.025)), high=float(draws.quantile(0.975))
    )


@torch.no_grad()
def bench(kind, batch, rounds, steps, device):
    nets, x = networks(kind, steps, device, batch)
    # for all alike: its kernel can't be counted, nor have a second branch
    torch.backends.mha.set_fastpath_enabled(False)
    flops = {}
    for k, f in nets.items():
        with FlopCounterMode(display=False) as count:
            f(x)
        flops[k] = count.get_total_flops()
    gen, times, names = torch.Generator().manual_seed(0), {k: [] for k in nets}, list(nets)
    for i in range(rounds + 3):  # three to warm up
        for j in torch.randperm(len(names), generator=gen).tolist():
            s = seconds(nets[names[j]], x)
            if i > 2:
                times[names[j]].append(s)
    base = times["baseline"]
    return {
        k: dict(
            **interval([a / b for a, b in zip(v, base)]),
            seconds=float(torch.tensor(v).median()),
            flops=flops[k],
        )
        for k, v in times.items()
    }


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", choices=("vit", "resnet50"), default="vit")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--rounds", type=int, default=200)
    p.add_argument("--steps", type=int, default=12, help="T of DenoiseRep^-")
    p.add_argument("--device", default="cpu")
    p.add_argument("--json")
    args = p.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(1)
    rows = bench(args.model, args.batch, args.rounds, args.steps, args.device)
    for k, r in rows.items():
        print(
            f"{k:15} {1e3 * r['seconds']:8.2f} ms  time x{r['ratio']:.3f} [{r['low']:.3f}, "
            f"{r['high']:.3f}]  operations x{r['flops'] / rows['baseline']['flops']:.4f}"
        )
    assert rows["fused"]["flops"] == rows["baseline"]["flops"], (
        "the fused network does more work than the baseline"
    )
    if args.json:
        write_json(
            args.json,
            dict(
                run=run_info(args.device),
                model=args.model,
                batch=args.batch,
                rounds=args.rounds,
                steps=args.steps,
                rows=rows,
            ),
        )
