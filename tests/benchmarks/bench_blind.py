"""What reading the blind U-Net costs, and what training it costs: python
tests/benchmarks/bench_blind.py [--json FILE] [--quick]

Reading: phi by the encoder-only pass, against the full forward pass with hooks on the blocks that
keep their maps (how features are usually
taken), in alternating rounds of one process; memory as the growth of the peak of a fresh process.
Training: images per second of one step
(forward, backward, fused Adam) in the layouts and number formats that the network could use, the
norm in cache-sized blocks or in plain operations."""

import argparse
import math
import re
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import torch

from denoise_study.denoiser import blind, BlindUNet
from denoise_study.diffusion import scalenorm
from denoise_study.core import run_info, write_json

CLOCK = time.perf_counter
FULL, QUICK = dict(), dict(widths=(16, 32, 64, 128), depths=(2, 3, 2))


def now(device):
    if device == "cuda":
        torch.cuda.synchronize()
    return CLOCK()


def encoder_only(net, x):
    return net.averages(x)["mid"]


def with_hooks(net, x):
    "All block outputs kept, as feature extractors do, then averaged"
    kept = {}
    hooks = [
        b.register_forward_hook(lambda m, a, out, k=k: kept.update({k: out}))
        for k, b in enumerate((*net.enc, net.mid, *net.dec))
    ]
    net(x)
    for h in hooks:
        h.remove()
    means = [h.mean((2, 3), dtype=torch.float32) for h in kept.values()]
    return means[len(net.enc)]


WAYS = {"encoder only": encoder_only, "full, maps kept by hooks": with_hooks}


def reading(config, batch, size, reps, device, bf16):
    "Seconds of both ways, in alternating rounds, and whether they agree"
    net, x = BlindUNet(**config).to(device), torch.rand(batch, 3, size, size, device=device)
    seconds, phi = {k: [] for k in WAYS}, {}
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=bf16):
        for r in range(reps + 1):
            for k, f in WAYS.items():
                start = now(device)
                phi[k] = f(net, x)
                if r:
                    seconds[k].append(now(device) - start)
    a, b = seconds.values()
    return dict(
        what="phi",
        format="bf16" if bf16 else "fp32",
        encoder_images_per_second=batch / statistics.median(a),
        full_images_per_second=batch / statistics.median(b),
        ratio=statistics.median(t / s for s, t in zip(a, b)),
        largest_difference=(phi["encoder only"] - phi["full, maps kept by hooks"])
        .abs()
        .max()
        .item(),
    )


def high_water():
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def peak(config, batch, size, way, device):
    "Bytes by which the peak grows during one pass; in a process of its own on a CPU"
    net, x = BlindUNet(**config).to(device), torch.rand(batch, 3, size, size, device=device)
    with torch.no_grad():
        WAYS[way](net, x[:1])  # code and libraries are loaded
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            WAYS[way](net, x)
            return torch.cuda.max_memory_allocated() - before
        # Linux: the high-water mark starts again from here
        Path("/proc/self/clear_refs").write_text("5")
        before = high_water()
        WAYS[way](net, x)
        return high_water() - before


def memory(args):
    def own_process(way):
        command = [
            sys.executable,
            __file__,
            "--peak",
            way,
            "--batch",
            str(args.batch),
            "--size",
            str(args.size),
            "--device",
            args.device,
        ]
        return int(
            subprocess.run(
                command + ["--quick"] * args.quick, capture_output=True, text=True, check=True
            ).stdout
        )

    a, b = (own_process(way) for way in WAYS)
    return dict(what="memory", encoder_MB=a / 2**20, full_MB=b / 2**20, share=a / b)


@contextmanager
def route(layout, blocked):
    "The network with another layout, or with the norm in plain operations"

    class Plain:
        apply = staticmethod(scalenorm.scale_norm_relu)

    kept = blind._LAYOUT, scalenorm._ScaleRelu
    blind._LAYOUT = layout
    if not blocked:
        scalenorm._ScaleRelu = Plain
    try:
        yield
    finally:
        blind._LAYOUT, scalenorm._ScaleRelu = kept


ROUTES = {
    "channels-last, norm in blocks": (torch.channels_last, True),
    "channels-last, plain norm": (torch.channels_last, False),
    "default layout, plain norm": (torch.contiguous_format, False),
}


def training(config, batch, size, reps, device):
    "Images per second of a training step in every route and number format, in alternating rounds"
    runs, seconds = {}, {}
    for name in ROUTES:
        for bf16 in (False, True):
            net = BlindUNet(**config).to(device)
            runs[name, bf16] = net, torch.optim.Adam(net.parameters(), 1e-3, fused=True)
            seconds[name, bf16] = []
    x = torch.rand(batch, 3, size, size, device=device)
    y = x + 0.25 * torch.randn_like(x)
    for r in range(reps + 1):
        for (name, bf16), (net, opt) in runs.items():
            with route(*ROUTES[name]):
                start = now(device)
                with torch.autocast(device, torch.bfloat16, enabled=bf16):
                    loss = (net(y) - x).pow(2).sum((1, 2, 3)).mean()
                loss.backward()
                opt.step()
                opt.zero_grad()
                if r:
                    seconds[name, bf16].append(now(device) - start)
    for (name, bf16), s in seconds.items():
        yield dict(
            what="training step",
            route=name,
            format="bf16" if bf16 else "fp32",
            images_per_second=batch / statistics.median(s),
        )


def show(row):
    text = {
        k: f"{v:.3g}" if isinstance(v, float) and not math.isinf(v) else v for k, v in row.items()
    }
    print(
        "  ".join(
            f"{k} {v}" if k not in ("what", "route", "format") else f"{v}" for k, v in text.items()
        ),
        flush=True,
    )
    return row


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--size", type=int, default=64)
    p.add_argument("--reps", type=int, default=5, help="rounds after one to warm up")
    p.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    p.add_argument(
        "--quick",
        action="store_true",
        help="a network of a fourth of the width, for a test of the script",
    )
    p.add_argument(
        "--reading",
        action="store_true",
        help="leave out the training steps, which take most of the time",
    )
    p.add_argument(
        "--cpu-time",
        action="store_true",
        help="one thread, and count its processor seconds: for a machine that others use too",
    )
    p.add_argument("--json", help="write the rows to this file")
    p.add_argument("--peak", choices=list(WAYS), help=argparse.SUPPRESS)
    args = p.parse_args()
    torch.manual_seed(0)
    config = QUICK if args.quick else FULL
    if args.peak:
        print(int(peak(config, args.batch, args.size, args.peak, args.device)))
        sys.exit()
    if args.cpu_time:
        torch.set_num_threads(1)
        CLOCK = time.process_time
    rows = [
        show(reading(config, args.batch, args.size, args.reps, args.device, bf16))
        for bf16 in (False, True)
    ]
    rows.append(show(memory(args)))
    if not args.reading:
        rows += [
            show(row) for row in training(config, args.batch, args.size, args.reps, args.device)
        ]
    if args.json:
        about = dict(
            config=BlindUNet(**config).config,
            batch=args.batch,
            size=args.size,
            rounds=args.reps,
            clock=CLOCK.__name__,
            threads=torch.get_num_threads(),
        )
        write_json(args.json, dict(run=run_info(args.device), **about, rows=rows))
