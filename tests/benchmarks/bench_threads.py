"""What waiting threads cost: python tests/benchmarks/bench_threads.py [--json FILE]

A small network has many short parallel sections, and between them its threads wait for each other.
They wait busily, for as long as GOMP_SPINCOUNT says: on a machine of one's own that is the fastest
way, beside other jobs it takes the time away from the very thread that is waited for. Milliseconds
a training step of the digits' diffusion model, for several settings, alone, beside one busy
process, and beside as many as there are cores; `default` is what the package sets itself.

Each setting has a process of its own, and they take turns of a second: what else happens on the
machine happens to all of them."""

import argparse
import os
import subprocess
import sys
import time

import numpy as np
import pandas as pd

SETTINGS = {
    "default": {},
    "libgomp's own": {"GOMP_SPINCOUNT": "300000"},  # where nobody sets it
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
    **{f"{n:,} spins": {"GOMP_SPINCOUNT": str(n)} for n in (1000, 3000, 30_000, 60_000, 100_000)},
}
CORES = os.cpu_count()
# they end with the benchmark, also where it is killed
ALONE = "import os; started = os.getppid()\nwhile os.getppid() == started: pass"
BUSY = [sys.executable, "-c", ALONE]


def work():
    "For each number on a line of the input, so many training steps; says the milliseconds of each"
    from denoise_study.core import image_dls
    from denoise_study.diffusion import DDGM, preset, Schedule, UNet
    import torch

    dls = image_dls("digits", device="cpu")
    model = DDGM(UNet(**preset(dls.info)["net"]), Schedule.linear(200), (1, 8, 8))
    opt = torch.optim.AdamW(model.parameters(), fused=True)
    x0, _ = dls.train.one_batch()
    gen = torch.Generator().manual_seed(0)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            _, *drawn = model.draw(x0.shape, gen)
            model(x0, *drawn).mean().backward()
            opt.step()
            opt.zero_grad()
        print(1e3 * (time.perf_counter() - start) / int(line), flush=True)


def worker(setting):
    "A process with this setting, which waits to be asked"
    names = "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
    env = {k: v for k, v in os.environ.items() if k not in names} | setting
    command = [sys.executable, __file__, "--work"]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return subprocess.Popen(command, env=env, text=True, **pipes)


def asked(process, steps):
    "Milliseconds a step"
    process.stdin.write(f"{steps}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def beside(busy, workers, steps, rounds):
    "A row a round: each setting in turn, beside so many busy processes"
    others = [subprocess.Popen(BUSY) for _ in range(busy)]
    try:
        found = []
        for _ in range(rounds):
            found.append({name: asked(p, steps) for name, p in workers.items()})
            print(busy, "busy:", {k: round(v, 1) for k, v in found[-1].items()}, flush=True)
        return pd.DataFrame(found)
    finally:
        for p in others:
            p.kill()


def summary(busy, found):
    """Median milliseconds a step, and the ratio to libgomp's own setting in the same round: median
    with a 95% interval over the rounds"""
    ratios = found.div(found["libgomp's own"], axis=0)
    rows = []
    for name in found:
        told = dict(busy=busy, setting=name, ms_a_step=found[name].median())
        # the median of resampled rounds: a round that was disturbed moves no end
        drawn = np.random.default_rng(0).choice(ratios[name], (2000, len(found)))
        low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
        rows.append(told | dict(ratio=ratios[name].median(), low=low, high=high))
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--work", action="store_true", help="be one of the processes that are measured")
    p.add_argument("--steps", type=int, default=4, help="training steps of a turn")
    p.add_argument("--rounds", type=int, default=20, help="turns of each setting")
    p.add_argument("--busy", nargs="*", type=int, default=sorted({0, 1, CORES}), help="processes")
    p.add_argument("--settings", default="", help="names, separated by semicolons; empty: all")
    p.add_argument("--json", help="write the table to this file")
    args = p.parse_args()
    if args.work:
        return work()

    from denoise_study.core import run_info, write_json

    names = args.settings.split(";") if args.settings else list(SETTINGS)
    workers = {name: worker(SETTINGS[name]) for name in {"libgomp's own": 0} | dict.fromkeys(names)}
    for process in workers.values():
        asked(process, 3)  # imports, and the first steps, count for nobody
    rows, run = [], run_info()
    for busy in args.busy:
        rows += summary(busy, beside(busy, workers, args.steps, args.rounds))
        if args.json:
            write_json(args.json, dict(run=run, cores=CORES, rounds=args.rounds, rows=rows))
    print(pd.DataFrame(rows).to_string(float_format="{:.2f}".format))
    for process in workers.values():
        process.kill()


if __name__ == "__main__":
    main()
