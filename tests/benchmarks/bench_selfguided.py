"""Cost of guidance: python bench_selfguided.py [--widths 16 32 64 128] [--size 32] [--batch 32]
[--repeat 5] [--device cpu] [--json FILE]

An iteration of `match` beside a bare forward and backward pass through the encoder and the middle
block of the same frozen
network, and beside the same through the whole network. Times are the best of `--repeat` runs,
interleaved, so that other
processes disturb all sides alike."""

import argparse, time

import torch

from denoise_study.denoiser import BlindUNet, denoiser
from denoise_study.core import run_info, write_json
from denoise_study.representation import match


CLOCK = time.perf_counter


def best(fs, repeat, device):
    "Least seconds of each function over `repeat` rounds after one to warm up"
    secs = {k: [] for k in fs}
    for _ in range(repeat + 1):
        for k, f in fs.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = CLOCK()
            f()
            if device.type == "cuda":
                torch.cuda.synchronize()
            secs[k].append(CLOCK() - start)
    return {k: min(v[1:]) for k, v in secs.items()}


def bench(args):
    "Seconds an iteration of each kind, and their ratios"
    device, steps = torch.device(args.device), args.steps
    torch.manual_seed(0)
    net = BlindUNet(channels=1, widths=tuple(args.widths)).to(device)
    D = denoiser(net, (1, args.size, args.size))
    x = torch.rand(args.batch, 1, args.size, args.size, device=device)
    with torch.no_grad():
        goal = D.phi(torch.rand_like(x))
    params = list(D.parameters())

    def bare(loss):  # `steps` passes; weights frozen as in `match`
        for p in params:
            p.requires_grad_(False)
        for _ in range(steps):
            y = x.clone().requires_grad_()
            torch.autograd.grad(loss(y), y)
        for p in params:
            p.requires_grad_(True)

    secs = best(
        {
            "adam": lambda: match(D, x, goal, 0.5, steps=steps, tol=0.0),
            "gd": lambda: match(D, x, goal, 0.5, method="gd", steps=steps, tol=0.0),
            "bare encoder": lambda: bare(lambda y: (D.averages(y)["mid"] - goal).square().sum()),
            "whole network": lambda: bare(lambda y: D(y).square().sum()),
        },
        args.repeat,
        device,
    )
    secs = {k: v / steps for k, v in secs.items()}
    return dict(
        what=f"guidance iteration, widths {args.widths}, "
        f"{args.batch}x1x{args.size}x{args.size}, {steps} in a call",
        **secs,
        ratio={k: secs[k] / secs["bare encoder"] for k in ("adam", "gd", "whole network")},
    )


def main():
    global CLOCK
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument(
        "--widths",
        type=int,
        nargs="+",
        default=[16, 32, 64, 128],
        help="channels of the blind U-Net",
    )
    p.add_argument("--size", type=int, default=32, help="side of the images")
    p.add_argument("--batch", type=int, default=32, help="images")
    p.add_argument(
        "--steps",
        type=int,
        default=20,
        help="iterations in a call, which share its last, forward-only pass",
    )
    p.add_argument("--repeat", type=int, default=5, help="rounds; the best counts")
    p.add_argument("--device", default="cpu")
    p.add_argument(
        "--cpu-time",
        action="store_true",
        help="one thread, and count its processor seconds: for a machine that others use too",
    )
    p.add_argument("--json", help="write the results to this file")
    args = p.parse_args()
    if args.cpu_time:
        torch.set_num_threads(1)
        CLOCK = time.process_time
    row = bench(args)
    print(row["what"])
    for k in ("adam", "gd", "bare encoder", "whole network"):
        print(
            f"  {k:<14}{row[k] * 1e3:9.2f} ms"
            + (f"   ratio {row['ratio'][k]:.2f}" if k in row["ratio"] else ""),
            flush=True,
        )
    if args.json:
        res = dict(
            run=run_info(args.device),
            threads=torch.get_num_threads(),
            clock=CLOCK.__name__,
            repeat=args.repeat,
            rows=[row],
        )
        write_json(args.json, res)


if __name__ == "__main__":
    main()
