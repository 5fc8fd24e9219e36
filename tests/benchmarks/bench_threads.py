"""What waiting threads cost: python tests/benchmarks/bench_threads.py [--json FILE]

A small network has many short parallel sections, and between them its threads wait for each other.
They wait busily, for as long as GOMP_SPINCOUNT says: on a machine of one's own that is the fastest
way, beside other jobs it takes the time away from the very thread that is waited for. Milliseconds
a training step of the digits' diffusion model, for several settings in turn, alone, beside one busy
process, and beside as many as there are cores; `default` is what the package sets itself."""

import argparse
import os
import statistics
import subprocess
import sys
import time

import pandas as pd

SETTINGS = {
    "default": {},
    "libgomp's own": {"GOMP_SPINCOUNT": "300000"},  # where nobody sets it
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
    **{f"{n:,} spins": {"GOMP_SPINCOUNT": str(n)} for n in (100, 1000, 3000, 10_000, 30_000)},
}
# they end with the benchmark, also where it is killed
ALONE = "import os; started = os.getppid()\nwhile os.getppid() == started: pass"
BUSY = [sys.executable, "-c", ALONE]


def work(seconds):
    "Milliseconds a training step"
    from denoise_study.core import image_dls
    from denoise_study.diffusion import DDGM, preset, Schedule, UNet
    import torch

    dls = image_dls("digits", device="cpu")
    model = DDGM(UNet(**preset(dls.info)["net"]), Schedule.linear(200), (1, 8, 8))
    opt = torch.optim.AdamW(model.parameters(), fused=True)
    x0, _ = dls.train.one_batch()

    def step(i):
        _, *drawn = model.draw(x0.shape, torch.Generator().manual_seed(i))
        model(x0, *drawn).mean().backward()
        opt.step()
        opt.zero_grad()

    for i in range(3):
        step(i)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step(done)
        done += 1
    return 1e3 * (time.perf_counter() - start) / done


def measured(setting, seconds):
    "The same in a process of its own"
    names = "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
    env = {k: v for k, v in os.environ.items() if k not in names} | setting
    command = [sys.executable, __file__, "--work", str(seconds)]
    return float(subprocess.run(command, env=env, check=True, capture_output=True).stdout)


def beside(busy, seconds):
    "Every setting once, beside so many busy processes"
    others = [subprocess.Popen(BUSY) for _ in range(busy)]
    try:
        return {name: measured(setting, seconds) for name, setting in SETTINGS.items()}
    finally:
        for p in others:
            p.kill()


def row(busy, name, found):
    "Median of the rounds, and of its ratio to libgomp's own setting in the same round"
    ms = statistics.median(f[name] for f in found)
    ratio = statistics.median(f[name] / f["libgomp's own"] for f in found)
    return dict(busy=busy, setting=name, ms_a_step=ms, ratio=ratio)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--work", type=float, help="measure in this process, for so many seconds")
    p.add_argument("--seconds", type=float, default=4, help="a measurement")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--json", help="write the table to this file")
    args = p.parse_args()
    if args.work:
        return print(work(args.work))

    from denoise_study.core import run_info, write_json

    cores, rows, run = os.cpu_count(), [], run_info()
    for busy in sorted({0, 1, cores}):
        found = []
        for i in range(args.repeats):
            found.append(beside(busy, args.seconds))
            steps = ", ".join(f"{name} {ms:.1f}" for name, ms in found[-1].items())
            print(f"{busy} busy, round {i + 1} of {args.repeats}, ms a step: {steps}", flush=True)
        rows += [row(busy, name, found) for name in SETTINGS]
        if args.json:
            write_json(args.json, dict(run=run, cores=cores, rows=rows))
    print(pd.DataFrame(rows).to_string(float_format="{:.2f}".format))


if __name__ == "__main__":
    main()
