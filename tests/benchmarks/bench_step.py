"""Where the time of a training step of the U-Net goes: python tests/benchmarks/bench_step.py
[--json FILE]

The step of bench_unet.py in float32, or with --bf16 in bfloat16 autocast and channels-last: the
share of convolutions and other products, of norms with their activation, of attention, of casts and
copies and of the optimiser, in ours and in peers, which take turns. Beside them how fast this
machine computes the three parts of a 3x3 convolution (forward, gradient of the images, gradient of
the weights) in both layouts of the memory, and a large product of matrices.
Nothing else may run meanwhile. Needs the `bench` extra.
"""

import argparse, math, statistics

import torch
from torch.profiler import profile, ProfilerActivity

from bench_unet import now, PEERS, Run
from denoise_study.core import run_info, write_json


# a kind of work -> its operations, as PyTorch's profiler calls them; what runs inside one of them
# is counted with it
KINDS = {
    "products, forward": ("aten::mkldnn_convolution", "aten::addmm", "aten::bmm"),
    "products, backward": ("aten::convolution_backward", "aten::mm"),
    "norms, activation": (
        "_BlockwiseNorm",
        "_BlockwiseNormBackward",
        "aten::native_group_norm",
        "aten::native_group_norm_backward",
        "aten::silu",
        "aten::silu_backward",
    ),
    "attention": (
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    ),
    "casts, copies": ("aten::copy_",),
    "optimiser, average": ("Optimizer.step#Adam.step", "aten::_foreach_lerp_"),
}
OF = {name: kind for kind, names in KINDS.items() for name in names}
LAYOUTS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}
SHAPES = {"64 channels, 32x32": (64, 32), "128 channels, 16x16": (128, 16)}


def is_inside(event):
    "Whether an operation was called by one that is counted itself"
    parent = event.cpu_parent
    return parent is not None and (parent.name in OF or is_inside(parent))


def profiled(run):
    "Seconds of one step, as a whole and by kind of work"
    with profile(activities=[ProfilerActivity.CPU]) as p:
        seconds = dict(whole=run.step(), **dict.fromkeys(KINDS, 0.0))
    for event in p.events():
        if event.name in OF and not is_inside(event):
            seconds[OF[event.name]] += event.cpu_time_total / 1e6
    return seconds


def steps(names, batch, rounds, bf16):
    "Median seconds of each model's step by kind of work; the models take turns"
    x = torch.randn(batch, 1, 32, 32)
    runs = {name: Run(PEERS[name], x, bf16, bf16) for name in names}
    seconds = {name: [] for name in names}
    for r in range(rounds + 1):
        for name, run in runs.items():
            took = profiled(run)
            if r:
                seconds[name].append(took)
    rows = []
    for name, rounds_of in seconds.items():
        median = {k: statistics.median(s[k] for s in rounds_of) for k in rounds_of[0]}
        shares = {k: median[k] / median["whole"] for k in KINDS}
        rest = 1 - sum(shares.values())
        rows.append(dict(model=name, seconds=median["whole"], **shares, rest=rest))
    return rows


def best_rate(gflop, compute, reps):
    "1e9 operations a second in the fastest of some repetitions"
    fastest = math.inf
    for _ in range(reps):
        start = now(torch.device("cpu"))
        compute()
        fastest = min(fastest, now(torch.device("cpu")) - start)
    return gflop / fastest


def convolution_rates(batch, reps, dtype):
    "The three parts of 3x3 convolutions from C to C channels"
    options = [1, 1], [1, 1], [1, 1], False, [0, 0], 1
    rows = []
    for shape, (c, side) in SHAPES.items():
        w = torch.randn(c, c, 3, 3, dtype=dtype)
        gflop = 2 * 9 * c * c * side**2 * batch / 1e9
        for layout, memory in LAYOUTS.items():
            x, g = torch.randn(2, batch, c, side, side, dtype=dtype).unbind()
            x, g = x.contiguous(memory_format=memory), g.contiguous(memory_format=memory)

            def gradient(of_x, of_w):
                wanted = [of_x, of_w, False]
                torch.ops.aten.convolution_backward(g, x, w, None, *options, wanted)

            parts = {
                "forward": lambda: torch.ops.aten.convolution(x, w, None, *options),
                "gradient of the images": lambda: gradient(True, False),
                "gradient of the weights": lambda: gradient(False, True),
            }
            rates = {part: best_rate(gflop, f, reps) for part, f in parts.items()}
            rows.append(dict(convolution=shape, layout=layout, **rates))
    return rows


def product_rate(reps, dtype, n=2048):
    a, b = torch.randn(2, n, n, dtype=dtype).unbind()
    return best_rate(2 * n**3 / 1e9, lambda: a @ b, reps)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--rounds", type=int, default=5, help="rounds after one to warm up")
    known = ["denoise_study", "improved-diffusion-like", "diffusers"]
    p.add_argument("--only", nargs="*", default=known, choices=list(PEERS))
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--bf16", action="store_true")
    p.add_argument("--json", help="write the tables to this file")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    dtype = torch.bfloat16 if a.bf16 else torch.float32
    record = dict(
        run=run_info("cpu"),
        precision=str(dtype).removeprefix("torch."),
        batch=a.batch,
        rounds=a.rounds,
        threads=a.threads,
        table=steps(a.only, a.batch, a.rounds, a.bf16),
        gflop_per_second=convolution_rates(a.batch, a.rounds, dtype),
        product_gflop_per_second=product_rate(a.rounds, dtype),
    )
    for rows in (record["table"], record["gflop_per_second"]):
        for row in rows:
            print({k: v if isinstance(v, str) else round(v, 3) for k, v in row.items()})
    print(f"product of matrices: {record['product_gflop_per_second']:.0f} GFLOP/s")
    if a.json:
        write_json(a.json, record)
