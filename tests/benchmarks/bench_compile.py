"""What torch.compile makes of the networks: python tests/benchmarks/bench_compile.py [--json FILE]

A training step (as in bench_unet.py) and a forward pass without gradients of the U-Net and of blind
denoisers of two widths, plain and compiled in turns, so that a busy machine slows both; the ratio
is the median over the rounds. The first call of what is compiled is timed apart: it has to be
earned back. Compilers keep what they made on disk: without TORCHINDUCTOR_FORCE_DISABLE_CACHES=1 a
second run finds it there."""

import argparse
import statistics

import torch
from bench_unet import now, PEERS, Run

from denoise_study.core import run_info, write_json
from denoise_study.denoiser import BlindUNet


def blind(width):
    "A blind denoiser of the small size, in bench_unet's form: the network, and how it is called"

    def make():
        widths = tuple(width * 2**i for i in range(4))
        net = BlindUNet(channels=1, widths=widths, depths=(2, 3, 2))
        return net, lambda x, t: net(x)

    return make


NETS = {"U-Net": PEERS["denoise_study"], "blind, 16": blind(16), "blind, 32": blind(32)}


def forward(run):
    "Seconds of a pass without gradients"
    start = now(run.x.device)
    with torch.no_grad(), torch.autocast(run.x.device.type, torch.bfloat16, enabled=run.bf16):
        run.call(run.x, run.t)
    return now(run.x.device) - start


WHAT = {"training step": Run.step, "forward pass": forward}


def in_turns(net, what, x, bf16, rounds):
    "Seconds of the first compiled call; of each round plain and compiled"
    plain, compiled = (Run(NETS[net], x, bf16, bf16, c) for c in (False, True))
    measured = WHAT[what]
    measured(plain)
    first = measured(compiled)
    return first, [(measured(plain), measured(compiled)) for _ in range(rounds)]


def row(net, what, kind, first, rounds):
    plain, compiled = (statistics.median(r[i] for r in rounds) for i in (0, 1))
    ratio = statistics.median(p / c for p, c in rounds)
    earned = (first - compiled) / (plain - compiled) if plain > compiled else None
    return dict(
        what=f"{net}: {what}, {kind}",
        plain=plain,
        compiled=compiled,
        ratio=ratio,
        first_call=first,
        earned_back_after=earned,
    )


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--formats", nargs="*", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    p.add_argument("--nets", nargs="*", default=list(NETS), choices=list(NETS))
    p.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    p.add_argument("--json", help="write the table to this file")
    a = p.parse_args()
    x = torch.randn(a.batch, 1, 32, 32, device=a.device)
    run = run_info(a.device)  # before the file changes the tree
    about = dict(batch=a.batch, rounds=a.rounds, threads=torch.get_num_threads())
    rows = []
    for kind in a.formats:
        for net in a.nets:
            for what in WHAT:
                measured = in_turns(net, what, x, kind == "bf16", a.rounds)
                rows.append(row(net, what, kind, *measured))
                print(", ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
                if a.json:
                    write_json(a.json, dict(run=run, **about, rows=rows))


if __name__ == "__main__":
    main()
