"""Training speed of `UNet` beside other U-Nets of its size: python tests/benchmarks/bench_unet.py
[--json FILE]

One step is forward, mean squared error, backward, Adam and an exponential moving average of the
weights, on 1x32x32 images with a 6.5 M parameter U-Net: width 64, multipliers 1,2,2, two blocks a
level, attention with one head at 16x16, the time added. The models take turns, round after round,
so that a busy machine slows all of them; ratios are medians over the rounds. Each model runs in two
settings: eager float32 with a plain Adam, and bfloat16 autocast with a fused Adam, there in the
default and in the channels-last layout, of which each model keeps its faster one. A processor
without instructions for bfloat16 takes many times as long with it: `--dtype fp32`. Needs the
`bench` extra.
"""

import argparse, math, statistics, time

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from denoise_study.core import run_info, write_json
from denoise_study.diffusion import timestep_embedding, UNet


CLOCK = time.perf_counter


# A U-Net as improved-diffusion writes it (time added): float32 group norm, concatenation, einsum
# attention.
class PlainRes(nn.Module):
    def __init__(self, i, o, emb):
        super().__init__()
        self.n1, self.c1 = nn.GroupNorm(32, i), nn.Conv2d(i, o, 3, padding=1)
        self.e = nn.Linear(emb, o)
        self.n2, self.c2 = nn.GroupNorm(32, o), nn.Conv2d(o, o, 3, padding=1)
        self.skip = nn.Conv2d(i, o, 1) if i != o else nn.Identity()

    def forward(self, x, e):
        h = self.c1(F.silu(self.n1(x.float()).type(x.dtype)))
        h = h + self.e(F.silu(e)).type(h.dtype)[..., None, None]
        return self.skip(x) + self.c2(F.silu(self.n2(h.float()).type(h.dtype)))


class PlainAttn(nn.Module):
    def __init__(self, c, heads=1):
        super().__init__()
        self.n, self.heads = nn.GroupNorm(32, c), heads
        self.qkv, self.proj = nn.Conv1d(c, 3 * c, 1), nn.Conv1d(c, c, 1)

    def forward(self, x, e):
        n, c, h, w = x.shape
        x = x.reshape(n, c, -1)
        qkv = self.qkv(self.n(x.float()).type(x.dtype))
        q, k, v = qkv.reshape(n * self.heads, -1, h * w).chunk(3, 1)
        scale = (c // self.heads) ** -0.25
        a = torch.einsum("bct,bcs->bts", q * scale, k * scale).float().softmax(-1).type(v.dtype)
        out = self.proj(torch.einsum("bts,bcs->bct", a, v).reshape(n, c, -1))
        return (x + out).reshape(n, c, h, w)


class PlainDown(nn.Conv2d):
    def __init__(self, c):
        super().__init__(c, c, 3, stride=2, padding=1)

    def forward(self, x, e):
        return super().forward(x)


class PlainUp(nn.Conv2d):
    def __init__(self, c):
        super().__init__(c, c, 3, padding=1)

    def forward(self, x, e):
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))


class PlainUNet(nn.Module):
    def __init__(self, width=64, mult=(1, 2, 2), blocks=2, attn=(2,)):
        super().__init__()
        e, c = 4 * width, width
        self.width, self.time = (
            width,
            nn.Sequential(nn.Linear(width, e), nn.SiLU(), nn.Linear(e, e)),
        )
        self.first, kept = nn.Conv2d(1, c, 3, padding=1), [c]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, m in enumerate(mult):
            for _ in range(blocks):
                self.down.append(
                    nn.ModuleList(
                        [PlainRes(c, c := m * width, e)] + [PlainAttn(c)] * (2**i in attn)
                    )
                )
                kept.append(c)
            if i < len(mult) - 1:
                self.down.append(nn.ModuleList([PlainDown(c)]))
                kept.append(c)
        self.mid = nn.ModuleList([PlainRes(c, c, e), PlainAttn(c), PlainRes(c, c, e)])
        for i, m in reversed(list(enumerate(mult))):
            for j in range(blocks + 1):
                parts = [PlainRes(c + kept.pop(), c := m * width, e)] + [PlainAttn(c)] * (
                    2**i in attn
                )
                self.up.append(nn.ModuleList(parts + [PlainUp(c)] * (i > 0 and j == blocks)))
        self.norm, self.last = nn.GroupNorm(32, c), nn.Conv2d(c, 1, 3, padding=1)

    def forward(self, x, t):
        e = self.time(timestep_embedding(t, self.width))
        run = lambda stage, h: [h := m(h, e) for m in stage][-1]
        kept = [h := self.first(x)]
        for stage in self.down:
            kept.append(h := run(stage, h))
        h = run(self.mid, h)
        for stage in self.up:
            h = run(stage, torch.cat([h, kept.pop()], 1))
        return self.last(F.silu(self.norm(h)))


def ours():
    return UNet(
        channels=1, width=64, mult=(1, 2, 2), n_blocks=2, attn=(2,), heads=1, scale_shift=False
    )


def diffusers():
    from diffusers import UNet2DModel

    net = UNet2DModel(
        32,
        1,
        1,
        block_out_channels=(64, 128, 128),
        layers_per_block=2,
        attention_head_dim=128,
        norm_num_groups=32,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )
    return net, lambda x, t: net(x, t).sample


def smalldiffusion():
    from smalldiffusion import Unet

    net = Unet(
        32, 1, 1, ch=64, ch_mult=(1, 2, 2), num_res_blocks=2, attn_resolutions=(16,), dropout=0.0
    )
    return net, lambda x, t: net(x, t.float() + 1)  # takes a noise level instead of a step


def lucidrains():
    from denoising_diffusion_pytorch import Unet

    return Unet(
        dim=72, dim_mults=(1, 2, 2), channels=1, full_attn=(False, True, False), flash_attn=True
    )


PEERS = {
    "denoise_study": ours,
    "diffusers": diffusers,
    "improved-diffusion-like": PlainUNet,
    "smalldiffusion": smalldiffusion,
    "lucidrains": lucidrains,
}


def now(device):
    "Seconds, when the device has done all that it was asked for"
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return CLOCK()


class Run:
    "One model in one setting; `step()` trains it once and returns the seconds"

    def __init__(self, make, x, bf16, last, compiled=False):
        torch.manual_seed(0)
        made = make()
        self.net, self.call = made if isinstance(made, tuple) else (made, made)
        self.net.to(x.device)  # in place: `call` may be a function around it
        if last:
            self.net.to(memory_format=torch.channels_last)
            x = x.contiguous(memory_format=torch.channels_last)
        if compiled:
            self.call = torch.compile(self.call)
        self.x, self.eps = x, torch.randn_like(x)
        self.t, self.bf16 = torch.randint(1000, x.shape[:1], device=x.device), bf16
        self.params = list(self.net.parameters())
        self.ema = [p.detach().clone() for p in self.params]
        self.opt = torch.optim.Adam(self.params, lr=1e-4, fused=bf16)

    def loss(self):
        with torch.autocast(self.x.device.type, torch.bfloat16, enabled=self.bf16):
            out = self.call(self.x, self.t)
        return F.mse_loss(out.float(), self.eps)

    def step(self):
        start = now(self.x.device)
        self.loss().backward()
        self.opt.step()
        self.opt.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, self.params, 1e-4)
        return now(self.x.device) - start

    def gflop(self):
        "Multiplications and additions of forward and backward, in 1e9 per image"
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as count:
            self.loss().backward()
        self.opt.zero_grad()
        return count.get_total_flops() / len(self.x) / 1e9


def conv_limit(dtype, n, reps=5, device=torch.device("cpu")):
    """GFLOP/s of the U-Net's commonest convolution alone, 128 to 128 channels at 16x16, forward and
    backward"""
    x = (
        torch.randn(n, 128, 16, 16, dtype=dtype, device=device)
        .contiguous(memory_format=torch.channels_last)
        .requires_grad_()
    )
    w = torch.randn(128, 128, 3, 3, dtype=dtype, device=device, requires_grad=True)
    g, best = torch.ones_like(x), math.inf
    for _ in range(reps):
        start = now(device)
        torch.autograd.grad(F.conv2d(x, w, padding=1), (x, w), g)
        best = min(best, now(device) - start)
    return 3 * 2 * 9 * 128 * 128 * 256 * n / best / 1e9


DTYPES = dict(fp32=torch.float32, bf16=torch.bfloat16)
SETTINGS = {  # autocast? channels last?
    "fp32": (False, False),
    "bf16+fused": (True, False),
    "bf16+fused, channels-last": (True, True),
}


def measure(names, batch, reps, compiled, device="cpu", size=32, dtypes=tuple(DTYPES)):
    device = torch.device(device)
    x = torch.randn(batch, 1, size, size, device=device)
    settings = {k: v for k, v in SETTINGS.items() if k[:4] in dtypes}
    runs, rows = {}, {}
    for name in names:
        for label, (bf16, last) in settings.items():
            runs[name, label] = Run(PEERS[name], x, bf16, last, compiled)
            rows[name, label] = dict(
                params=sum(p.numel() for p in runs[name, label].params), gflop=None, seconds=[]
            )
    for name in names:  # before any step, so that counting compiles nothing
        gflop = Run(PEERS[name], x[:2], False, False).gflop()
        for label in settings:
            rows[name, label]["gflop"] = gflop
    for r in range(reps + 1):
        for k, run in runs.items():
            seconds = run.step()
            if r:
                rows[k]["seconds"].append(seconds)
    return rows, {k: conv_limit(DTYPES[k], batch, device=device) for k in dtypes}


def report(rows, limits, batch):
    median, table = statistics.median, []
    best = {}
    for (name, label), r in sorted(rows.items(), key=lambda kv: median(kv[1]["seconds"])):
        best.setdefault((name, label[:4]), (label, r))
    print(
        f"{'model':25}{'setting':27}{'params':>11}{'GFLOP/img':>10}{'img/s':>8}"
        f"{'GFLOP/s':>9}{'of conv':>9}{'ours':>7}"
    )
    for (name, kind), (label, r) in sorted(best.items(), key=lambda kv: kv[0][1] != "fp32"):
        s = median(r["seconds"])
        mine = best["denoise_study", kind][1]["seconds"]
        rate = batch * r["gflop"] / s
        row = dict(
            model=name,
            setting=label,
            params=r["params"],
            gflop_per_image=r["gflop"],
            seconds=s,
            images_per_second=batch / s,
            gflop_per_second=rate,
            share_of_convolution=rate / limits[kind],
            ours_is_faster_by=median(b / a for a, b in zip(mine, r["seconds"])),
        )
        print(
            f"{name:25}{label:27}{row['params']:11,}{r['gflop']:10.2f}{batch / s:8.1f}{rate:9.0f}"
            f"{row['share_of_convolution']:9.0%}{row['ours_is_faster_by']:6.2f}x"
        )
        table.append(row)
    peers = [r for (n, k), (_, r) in best.items() if n != "denoise_study" and k == "fp32"]
    if peers and ("denoise_study", "bf16") in best:
        fastest = min(peers, key=lambda r: median(r["seconds"]))["seconds"]
        double = median(b / a for a, b in zip(best["denoise_study", "bf16"][1]["seconds"], fastest))
        print(f"ours at its best against the fastest peer in eager fp32: {double:.2f}x")
        return table, double
    return table, None


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--reps", type=int, default=7, help="rounds after one to warm up")
    p.add_argument("--only", nargs="*", default=list(PEERS), choices=list(PEERS))
    p.add_argument("--dtype", nargs="*", default=list(DTYPES), choices=list(DTYPES))
    p.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    p.add_argument("--compile", action="store_true", help="torch.compile every model")
    p.add_argument("--json", help="write the table to this file")
    p.add_argument(
        "--cpu-time",
        action="store_true",
        help="one thread, and count its processor seconds: for a machine that others use too",
    )
    a = p.parse_args()
    if a.cpu_time:
        torch.set_num_threads(1)
        CLOCK = time.process_time
    rows, limits = measure(a.only, a.batch, a.reps, a.compile, a.device, dtypes=a.dtype)
    about = dict(
        batch=a.batch,
        rounds=a.reps,
        compile=a.compile,
        clock=CLOCK.__name__,
        threads=torch.get_num_threads(),
        convolution_gflop_per_second=limits,
    )
    print(about)
    table, double = report(rows, limits, a.batch)
    if a.json:
        write_json(
            a.json,
            dict(
                run=run_info(a.device), **about, best_against_fastest_peer_fp32=double, table=table
            ),
        )
